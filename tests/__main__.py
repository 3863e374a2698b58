"""Run the tests in lanes and sum them up: `make test`, `make e2e`.

What can stand company runs first, spread over several processes file by file. What needs the machine for itself (marked
`alone`) runs afterwards, one test after the other, if there is any. What needs a Kubernetes node is a run of its own.

With `--again` the few that failed run once more, alone. What passes then is unstable: it is said, and not forgotten.
"""

from __future__ import annotations

import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

import click

from tests.support.lanes import (
    AGAIN,
    EXISTING,
    INTERRUPTED,
    NO_TESTS,
    Lane,
    Order,
    Run,
    ended,
    lanes_of,
    left_out,
    node_lanes,
    options_in,
    summary,
    to_repeat,
    verdict_on,
    what_stays,
)
from tests.support.node.missing import missing
from tests.support.processes import ROOT, ends_with_me, staying
from tests.support.progress import ALONE, clock, leaves_some_alone, read_left, read_records, read_running
from tests.tools import binaries

WORKERS = 3
"""Processes for each core: tests wait more than they compute."""
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What ends a run: Ctrl-C, a service manager, a terminal that is closed."""
AT_ONCE = 0.2
"""Seconds in which two of them are one."""
DEBUGGING = {"--pdb", "--trace"}


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
    _build(binaries.NODE_PROGRAMS if node else binaries.PROGRAMS)
    if existing := os.environ.get(EXISTING):
        print(what_stays(existing))
    order = Order(seed or random.randrange(1, 2**31), shuffle)
    lanes = node_lanes(arguments) if node else lanes_of(jobs or WORKERS * len(os.sched_getaffinity(0)), arguments)
    interrupted = Event()
    _handle(lambda _: lambda *_: interrupted.set())
    folder = Path(tempfile.mkdtemp(prefix="beamlit-tests-"))
    runs = list(_run_all(lanes, folder, order, arguments, interrupted))
    if not interrupted.is_set() and (failed := to_repeat(runs, again)):
        runs.append(_run(Lane(AGAIN, failed), folder, order, options_in(arguments), interrupted))
    code = INTERRUPTED if interrupted.is_set() else verdict_on(runs)
    still = staying(folder)
    if not still and (code == INTERRUPTED or {run.code for run in runs} <= {0, NO_TESTS}):
        shutil.rmtree(folder, ignore_errors=True)
    print("\n".join(summary(runs, order, os.environ, arguments)))
    print(f"not part of this run: {left_out(arguments, node)}")
    if folder.exists():
        print(f"\nwhat the programs wrote is kept: {folder}")
    for process, command in still.items():
        print(f"STILL RUNNING: {process} {command}")
    counts = ", ".join(ended(run) for run in runs)
    words = {0: "passed", INTERRUPTED: "interrupted", NO_TESTS: "NO TESTS"}.get(code, "FAILED")
    if code == 0 and (failed := to_repeat(runs, again)):
        words = f"passed, {len(failed)} UNSTABLE"
    print(f"\n{words}: {counts}; {clock(sum(run.seconds for run in runs))} in all (seed {order.seed})")
    sys.exit(code)


def _build(programs: Iterable[Callable[[], object]]) -> None:
    """Build what is missing of what the tests run; end the program as an interrupted one if it is interrupted."""
    _handle(lambda _: signal.default_int_handler)
    try:
        for program in programs:
            program()
    except KeyboardInterrupt:
        print("\ninterrupted: programs that the tests run were being built")
        sys.exit(INTERRUPTED)


def _handle(handler: Callable[[signal.Signals], Callable[..., object]]) -> None:
    """Handle what ends a run; but for a terminal that is closed, if it does not matter (`nohup`)."""
    for number in ENDING:
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, handler(number))


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
    # In a group of its own: a terminal signals the runner alone, which passes it on as it does what others send it.
    # Who debugs has to have the terminal; others would be stopped if they read from it.
    alone = not DEBUGGING & set(arguments)
    group, stdin = (0, subprocess.DEVNULL) if alone else (None, None)
    with subprocess.Popen(
        ends_with_me(command, signal.SIGINT), cwd=ROOT, env=environment, process_group=group, stdin=stdin
    ) as pytest:
        _handle(lambda number: Interruption(pytest, interrupted, alone or number != signal.SIGINT))
        if interrupted.is_set():  # Just now.
            pytest.send_signal(signal.SIGINT)
        code = pytest.wait()
    return Run(lane, code, time.monotonic() - began, read_records(record), read_left(record), read_running(record))


def _record_of(lane: Lane, folder: Path) -> Path:
    return folder / f"{lane.name}.json"


@dataclass
class Interruption:
    """Passes on to a lane what ends a run, as a terminal sends it on Ctrl-C; twice, for who does not want to wait.

    `timeout` and others signal a process and then its group: the second at once is none.
    """

    lane: subprocess.Popen[bytes]
    interrupted: Event
    passes_on: bool
    last: float = -math.inf

    def __call__(self, *_: object) -> None:
        self.interrupted.set()
        if self.passes_on and time.monotonic() - self.last > AT_ONCE:
            self.lane.send_signal(signal.SIGINT)
        self.last = time.monotonic()


if __name__ == "__main__":
    main(prog_name="python -m tests")
