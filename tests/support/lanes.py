"""What a run of the tests is made of, what it comes to, and what is said of it: see `python -m tests --help`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tests.support.progress import ALONE, Record, clock, left, suite_of
from tests.tools import binaries

TESTS_FAILED, INTERRUPTED, NO_TESTS = 1, 2, 5
"""Exit codes as pytest has them, https://docs.pytest.org/en/stable/reference/exit-codes.html. Its own 2 may also mean
that `-x` ended a run; the other is that of a lane that has none of the tests that were asked for."""
AGAIN = "again"
"""The lane of what failed in another one."""
SLOWEST = 20
NODE_SUITE = "tests/e2e_node"
COMPATIBILITY = "tests/compatibility"
"""What other projects do for a release of ours: `make compatibility` builds them and names it."""
EXISTING = "BEAMLIT_TEST_KUBECONFIG"
"""The variable that names the kubeconfig of a cluster to use instead of one of this machine."""
ASKED_FOR = (EXISTING, "BEAMLIT_TEST_KILLS", *binaries.GIVEN)
"""The variables that say what a run runs on, and for how long."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Tests that run in the same way."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A lane that has run; `left` are its tests that did not, as after `-x`: how many of which suite.

    `running` are those that had begun and came to no end. Of a lane that died nobody knows either (None).
    """

    lane: Lane
    code: int
    seconds: float
    records: tuple[Record, ...]
    left: Mapping[str, int] | None = field(default_factory=dict)
    running: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Record, ...]:
        return tuple(record for record in self.records if record.outcome == "failed")


@dataclass(frozen=True, slots=True)
class Order:
    """What is random of a run, so that it can be run again: all but the addresses, which belong to who is first."""

    seed: int
    shuffled: bool

    @property
    def options(self) -> tuple[str, ...]:
        return ("--shuffle-files", str(self.seed)) if self.shuffled else ()

    @property
    def environment(self) -> dict[str, str]:
        return {"BEAMLIT_TEST_SEED": str(self.seed)}


def lanes_of(workers: int, arguments: tuple[str, ...]) -> tuple[Lane, ...]:
    """Return the lanes of everything that needs no node, without what only runs when pytest's arguments name it."""
    named = any(argument.startswith(COMPATIBILITY) for argument in arguments)
    elsewhere = tuple(f"--ignore={suite}" for suite in (NODE_SUITE, *(() if named else (COMPATIBILITY,))))
    together = ("-m", f"not {ALONE}", "-p", "tests.support.workers")
    return (
        Lane("together", (*elsewhere, *together, f"--workers={workers}")),
        Lane(ALONE, (*elsewhere, "-m", ALONE)),
    )


def node_lanes(arguments: tuple[str, ...]) -> tuple[Lane, ...]:
    """Return the lane of what needs a node: all of it, unless pytest's arguments name a part."""
    named = any(argument.startswith(NODE_SUITE) for argument in arguments)
    return (Lane("node", () if named else (NODE_SUITE,)),)


def left_out(arguments: tuple[str, ...], node: bool) -> str:
    """Say which suites a run leaves out, and what runs them. What pytest's arguments leave out, who gave them knows."""
    if node:
        return "everything else (make test)"
    named = any(argument.startswith(COMPATIBILITY) for argument in arguments)
    return f"{NODE_SUITE} (make e2e)" + ("" if named else f", {COMPATIBILITY} (make compatibility)")


def to_repeat(runs: Iterable[Run], at_most: int) -> tuple[str, ...]:
    """Return the failed tests of lanes that ran to their end, if nothing but a few of these was amiss."""
    lanes = [run for run in runs if run.lane.name != AGAIN]
    failed = tuple(record.nodeid for run in lanes for record in run.failed)
    some_failed = all(
        run.left is not None and not any(run.left.values()) and run.code in (0, TESTS_FAILED, NO_TESTS) for run in lanes
    )
    return failed if some_failed and len(failed) <= at_most else ()


def verdict_on(runs: Iterable[Run]) -> int:
    """Return the exit code of lanes that ran to their end: 1 when a test failed, pytest's own for other trouble.

    A test that failed and was run again counts as it ended then.
    """
    runs = list(runs)
    unstable = any(run.lane.name == AGAIN and run.code == 0 for run in runs)
    codes = {0 if unstable and run.code == TESTS_FAILED else run.code for run in runs}
    if codes <= {0, NO_TESTS}:
        return NO_TESTS if codes == {NO_TESTS} else 0
    worst = max(codes - {0, NO_TESTS})
    if worst < 0:  # By a signal, of which a shell says so.
        return 128 - worst
    return TESTS_FAILED if worst == INTERRUPTED else worst


def summary(
    runs: Iterable[Run], order: Order, environment: Mapping[str, str], arguments: Sequence[str] = ()
) -> Iterator[str]:
    """Say what ran where and for how long, what was slow, what was skipped and why, and how to repeat what failed."""
    runs = list(runs)
    records = [record for run in runs for record in run.records]
    yield f"\n{'suite':<12} {'tests':>6} {'seconds':>8}   in all processes together"
    for suite in sorted({suite_of(record.nodeid) for record in records}):
        of_it = [record for record in records if suite_of(record.nodeid) == suite]
        yield f"{suite:<12} {len(of_it):>6,} {sum(record.seconds for record in of_it):>8.1f}"
    yield f"\nthe {SLOWEST} slowest tests, with their fixtures"
    for record in sorted(records, key=lambda record: -record.seconds)[:SLOWEST]:
        yield f"{record.seconds:>8.1f} s  {record.nodeid}"
    # Every lane collects all files, and so has those that are skipped as a whole.
    skipped = {record.nodeid: record.reason for record in records if record.outcome == "skipped"}
    yield f"\nskipped: {len(skipped) or 'none'}"
    yield from (f"  {nodeid}: {reason}" for nodeid, reason in skipped.items())
    passed_again = {record.nodeid for run in runs if run.lane.name == AGAIN for record in run.records} - {
        record.nodeid for run in runs if run.lane.name == AGAIN for record in run.failed
    }
    for run in runs:
        yield from _not_run(run)
    for run in runs:
        for record in run.failed:
            unstable = record.nodeid in passed_again
            yield f"\n{'UNSTABLE' if unstable else 'FAILED'} in the lane {run.lane.name}: {record.nodeid}"
            yield f"  repeat: {_repeat(record, order, environment, options_in(arguments))}"


def _not_run(run: Run) -> Iterator[str]:
    """Say what a lane that ended before its time had under way, and what it left."""
    if run.left is None:
        yield f"\nthe lane {run.lane.name} ended (exit code {run.code}) and says not what it left"
    elif any(run.left.values()):
        yield f"\nleft by the lane {run.lane.name}: {left(run.left)}"
    yield from (f"  had begun: {nodeid}" for nodeid in run.running)


def ended(run: Run) -> str:
    """Say in a few words how many tests of a lane ran, and how it ended if it was not as lanes do."""
    died = "" if run.code in (0, TESTS_FAILED, INTERRUPTED, NO_TESTS) else f" (exit code {run.code})"
    return f"{run.lane.name} {len(run.records):,} in {clock(run.seconds)}{died}"


CHOOSING = ("ignore", "deselect", "lf", "last-failed", "ff", "failed-first", "nf", "maxfail", "exitfirst", "stepwise")
"""pytest's options that say which tests run, and when no more do."""


def options_in(arguments: Sequence[str]) -> tuple[str, ...]:
    """Return those of pytest's arguments that shape a run, and say nothing of which tests are part of it."""
    found: list[str] = []
    for argument, following in pairwise((*arguments, "")):
        name, _, value = argument.removeprefix("--").partition("=")
        if not argument.startswith("--") or name.startswith(CHOOSING):
            continue
        found.append(argument)
        if not value and following and not following.startswith("-") and not _is_test(following):
            found.append(following)
    return tuple(found)


def _is_test(argument: str) -> bool:
    return Path(argument.partition("::")[0]).exists()


def _repeat(record: Record, order: Order, environment: Mapping[str, str], options: Sequence[str]) -> str:
    """Give the command that runs a test as it ran: in a lane, with the same seed and options, on the same programs."""
    asked_for = [f"{name}={environment[name]}" for name in ASKED_FOR if environment.get(name)]
    node = ("--node",) if record.nodeid.startswith(NODE_SUITE) else ()
    command = (".venv/bin/python", "-m", "tests", *node, "--seed", str(order.seed), *options, record.nodeid)
    return shlex.join((*(("env", *asked_for) if asked_for else ()), *command))


STAYS = """on the cluster of {kubeconfig}, as long as this runs:
  namespaces beamlit-tests-* and test-*, and bindings of their administrator to the ClusterRole cluster-admin.
  Should it be killed, they stay: kubectl delete namespace,clusterrolebinding --selector=beamlit.com/made-by=tests
afterwards, too: the CustomResourceDefinitions of beamlit.com, which others may use; if nobody does:
  kubectl delete --filename={definitions}
"""


def what_stays(kubeconfig: str) -> str:
    """Say what a run has on somebody's cluster, and how to remove what it leaves."""
    return STAYS.format(kubeconfig=kubeconfig, definitions="deploy/crds")
