"""Run the tests in lanes and sum them up: `make test`, `make e2e`.

What can stand company runs first, spread over several processes file by file. What needs the machine for itself (marked
`alone`) runs afterwards, one test after the other, if there is any. What needs a Kubernetes node is a run of its own.

With `--again` the few that failed run once more, alone. What passes then is unstable: it is said, and not forgotten.
"""

from __future__ import annotations

import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import Event

import click

from tests.support.node.missing import missing
from tests.support.processes import ROOT, ends_with_me, processes_of
from tests.support.progress import ALONE, Record, clock, leaves_some_alone, ran_to_its_end, read_records, suite_of
from tests.support.waiting import Deadline
from tests.tools import binaries

TESTS_FAILED, INTERRUPTED, NO_TESTS = 1, 2, 5
"""Exit codes as pytest has them, https://docs.pytest.org/en/stable/reference/exit-codes.html. Its own 2 may also mean
that `-x` ended a run; the other is that of a lane that has none of the tests that were asked for."""
AGAIN = "again"
"""The lane of what failed in another one."""
SLOWEST = 20
ENDS_WITHIN = 60.0
"""Seconds that a program of a run has to end after it, before it is said to run still: see `waiting`."""
WORKERS = 3
"""Processes for each core: tests wait more than they compute."""
NODE_SUITE = "tests/e2e_node"
COMPATIBILITY = "tests/compatibility"
"""What other projects do for a release of ours: `make compatibility` builds them and names it."""
EXISTING = "BEAMLIT_TEST_KUBECONFIG"
"""The variable that names the kubeconfig of a cluster to use instead of a node of this machine."""
ASKED_FOR = (EXISTING, "BEAMLIT_TEST_KILLS", *binaries.GIVEN)
"""The variables that say what a run runs on, and for how long."""


@dataclass(frozen=True, slots=True)
class Lane:
    """Tests that run in the same way."""

    name: str
    options: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Run:
    """A lane that has run; it `is_whole` if none of its tests was left, as by `-x`."""

    lane: Lane
    code: int
    seconds: float
    records: tuple[Record, ...]
    is_whole: bool = True

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


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--jobs", type=click.IntRange(1), help="Processes of the first lane. Default: three for each core.")
@click.option("--seed", type=click.IntRange(1), help="Of what is random but addresses. Default: another one each time.")
@click.option("--shuffle", is_flag=True, help="Take the files in a random order, that of the seed.")
@click.option(
    "--again",
    type=click.IntRange(0),
    default=0,
    help="Repeat failed tests once, if they are at most so many. Default: 0.",
)
@click.option("--node", is_flag=True, help="Run what needs a Kubernetes node instead: tests/e2e_node.")
@click.argument("arguments", metavar="[PYTEST ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
def main(
    *, jobs: int | None, seed: int | None, shuffle: bool, again: int, node: bool, arguments: tuple[str, ...]
) -> None:
    """Run all tests, or those that pytest's arguments name.

    \b
    Examples:
      python -m tests                        everything
      python -m tests tests/kube -x          one suite, until a test fails
      python -m tests --shuffle --seed 7     the files in that order again

    \b
    Exit codes: 0 when all passed, 1 when a test failed, 2 when interrupted, 5 when there was none; others are pytest's.
    """
    if node and not os.environ.get(EXISTING) and (lacks := missing()):
        sys.exit(lacks)
    for program in binaries.NODE_PROGRAMS if node else binaries.PROGRAMS:
        program()
    order = Order(seed or random.randrange(1, 2**31), shuffle)
    lanes = node_lanes(arguments) if node else lanes_of(jobs or WORKERS * len(os.sched_getaffinity(0)), arguments)
    # Ctrl-C reaches every process of the terminal: pytest cleans up, and this one waits for it.
    interrupted = Event()
    signal.signal(signal.SIGINT, lambda *_: interrupted.set())
    folder = Path(tempfile.mkdtemp(prefix="beamlit-tests-"))
    runs = list(_run_all(lanes, folder, order, arguments, interrupted))
    if not interrupted.is_set() and (failed := to_repeat(runs, again)):
        runs.append(_run(Lane(AGAIN, failed), folder, order, (), interrupted))
    code = INTERRUPTED if interrupted.is_set() else verdict_on(runs)
    if code == INTERRUPTED or {run.code for run in runs} <= {0, NO_TESTS}:
        _remove(folder)
    print("\n".join(summary(runs, order, os.environ)))
    print(f"not part of this run: {left_out(arguments, node)}")
    if folder.exists():
        print(f"\nwhat the programs wrote is kept: {folder}")
    counts = ", ".join(f"{run.lane.name} {len(run.records):,} in {clock(run.seconds)}" for run in runs)
    words = {0: "passed", INTERRUPTED: "interrupted", NO_TESTS: "NO TESTS"}.get(code, "FAILED")
    if code == 0 and (failed := to_repeat(runs, again)):
        words = f"passed, {len(failed)} UNSTABLE"
    print(f"\n{words}: {counts}; {clock(sum(run.seconds for run in runs))} in all (seed {order.seed})")
    sys.exit(code)


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
    some_failed = all(run.is_whole and run.code in (0, TESTS_FAILED, NO_TESTS) for run in lanes)
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
    return TESTS_FAILED if worst == INTERRUPTED else worst


def _remove(folder: Path) -> None:
    """Remove a folder once no process names it any more: a shared API server, nobody's child, may be ending still."""
    deadline = Deadline(time.monotonic(), ENDS_WITHIN)
    while folder.exists() and not deadline.has_passed(time.monotonic()):
        if not processes_of(folder):
            shutil.rmtree(folder, ignore_errors=True)
        time.sleep(deadline.pause(time.monotonic()))
    for process, command in processes_of(folder).items():
        print(f"STILL RUNNING: {process} {command}")


def _run_all(
    lanes: Iterable[Lane], folder: Path, order: Order, arguments: tuple[str, ...], interrupted: Event
) -> Iterator[Run]:
    """Run one lane after the other; none after an interruption, and none that the one before left nothing to."""
    some_are_left = True
    for lane in lanes:
        if lane.name == ALONE and not some_are_left:
            return
        yield _run(lane, folder, order, arguments, interrupted)
        if interrupted.is_set():
            return
        some_are_left = leaves_some_alone(_record_of(lane, folder))


def _run(lane: Lane, folder: Path, order: Order, arguments: tuple[str, ...], interrupted: Event) -> Run:
    record = _record_of(lane, folder)
    own = ("-p", "tests.support.progress", f"--record={record}", f"--basetemp={folder / lane.name}")
    print(f"\nlane {lane.name}: {' '.join(lane.options)} (seed {order.seed})", flush=True)
    began = time.monotonic()
    command = (sys.executable, "-m", "pytest", "-q", *own, *lane.options, *order.options, *arguments)
    # What is written to no certain place is gone with the folder, also if its program is killed.
    environment = os.environ | order.environment | {"TMPDIR": str(folder)}
    # API servers, etcd, kubectl: much of their work is to look for garbage, for which there is room enough.
    environment.setdefault("GOGC", "400")
    # Of many processes each would compile everything anew.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    with subprocess.Popen(ends_with_me(command, signal.SIGINT), cwd=ROOT, env=environment) as pytest:
        signal.signal(signal.SIGTERM, partial(_interrupt, pytest, interrupted))
        code = pytest.wait()
    return Run(lane, code, time.monotonic() - began, read_records(record), ran_to_its_end(record))


def _record_of(lane: Lane, folder: Path) -> Path:
    return folder / f"{lane.name}.json"


def _interrupt(pytest: subprocess.Popen[bytes], interrupted: Event, *_: object) -> None:
    """Pass on to a lane what a terminal would have sent to it on Ctrl-C."""
    interrupted.set()
    pytest.send_signal(signal.SIGINT)


def summary(runs: Iterable[Run], order: Order, environment: Mapping[str, str]) -> Iterator[str]:
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
        for record in run.failed:
            unstable = record.nodeid in passed_again
            yield f"\n{'UNSTABLE' if unstable else 'FAILED'} in the lane {run.lane.name}: {record.nodeid}"
            yield f"  repeat: {_repeat(record, order, environment)}"


def _repeat(record: Record, order: Order, environment: Mapping[str, str]) -> str:
    """Give the command that runs one test as it ran: in a lane, with the same seed, on the same programs."""
    asked_for = [f"{name}={environment[name]}" for name in ASKED_FOR if environment.get(name)]
    node = ("--node",) if record.nodeid.startswith(NODE_SUITE) else ()
    command = (".venv/bin/python", "-m", "tests", *node, "--seed", str(order.seed), record.nodeid)
    return shlex.join((*(("env", *asked_for) if asked_for else ()), *command))


if __name__ == "__main__":
    main(prog_name="python -m tests")
