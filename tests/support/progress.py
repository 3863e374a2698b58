"""A pytest plugin: how far a run is while it goes on, and a record of every test for whoever sums it up.

Dots say neither what is left nor what takes so long. With `-p tests.support.progress` a line every ten seconds does, or
every `--say-every` seconds, and with `--record FILE` the outcome and the seconds of each test are written there when
the run ends, however it ends. With `tests.support.workers` it works in the process that distributes the tests, which
every worker reports to. It also writes how many tests were left to the lane of those marked `alone`: where there are
none, nobody has to collect again.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

EVERY_SECONDS = 10.0
"""Between two lines, unless it is told otherwise."""
ALONE = "alone"
"""The mark of a test that needs the machine for itself."""


@dataclass(slots=True)
class Record:
    """What became of one test. `seconds` are those of its fixtures too; `reason` says why it was skipped."""

    nodeid: str
    outcome: str = "passed"
    seconds: float = 0.0
    reason: str = ""

    @property
    def file(self) -> str:
        return self.nodeid.partition("::")[0]


def read_records(file: Path) -> tuple[Record, ...]:
    """Return what a run wrote; nothing if it wrote nothing."""
    return tuple(Record(**one) for one in json.loads(file.read_text())["tests"]) if file.exists() else ()


def leaves_some_alone(file: Path) -> bool:
    """Whether a run left tests to the lane of those that are marked `alone`, or does not say that it did not."""
    return not file.exists() or json.loads(file.read_text())["alone"] != 0


def read_left(file: Path) -> Mapping[str, int] | None:
    """Return how many tests of each suite a run left, as after the first failure; None if it says nothing."""
    return dict(json.loads(file.read_text())["left"]) if file.exists() else None


def read_running(file: Path) -> tuple[str, ...]:
    """Return the tests that had begun when a run was interrupted."""
    return tuple(json.loads(file.read_text())["running"]) if file.exists() else ()


def suite_of(nodeid: str) -> str:
    """The suite that a test belongs to: the first folder below `tests`, or the folder beside it."""
    folders = nodeid.partition("::")[0].split("/")
    return folders[1] if folders[0] == "tests" else folders[0]


def clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _why_skipped(report: pytest.TestReport | pytest.CollectReport) -> str:
    return str(report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr)


def _alone(items: Sequence[pytest.Item]) -> int:
    return sum(item.get_closest_marker(ALONE) is not None for item in items)


class Progress:
    """Counts tests as they begin and end."""

    def __init__(self, record: Path | None, every: float = EVERY_SECONDS) -> None:
        self._every = every
        self._output = os.dup(1)  # Nothing is captured while pytest is configured.
        self._record = record
        self._records: dict[str, Record] = {}
        self._running: dict[str, float] = {}
        self._left: Counter[str] = Counter()
        self._interrupted: tuple[str, ...] = ()
        self._alone = 0
        self._began = time.monotonic()
        # What is said is read in a thread of its own.
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._ticking: threading.Thread | None = None

    # What pytest says to this process. See "Reference" in its documentation for each hook.

    def pytest_sessionstart(self) -> None:
        self.go_on()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        with self._lock:
            self._left = Counter(suite_of(item.nodeid) for item in session.items)

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        self._alone += _alone(items)

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        with self._lock:
            self._running[nodeid] = time.monotonic()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        with self._lock:
            record = self._records.setdefault(report.nodeid, Record(report.nodeid))
        record.seconds += report.duration
        if report.skipped:
            record.outcome = "skipped"
            record.reason = _why_skipped(report)
        elif report.failed:
            record.outcome = "failed"
            self._write(f"FAILED  {report.nodeid}")

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Record a file that cannot be collected like a test that failed, and one that is skipped like one that is."""
        if not report.passed:
            reason = _why_skipped(report) if report.skipped else ""
            with self._lock:
                self._records.setdefault(report.nodeid, Record(report.nodeid, report.outcome, reason=reason))

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        with self._lock:
            self._running.pop(nodeid, None)
            self._left[suite_of(nodeid)] -= 1

    def is_interrupted(self) -> None:
        """Keep what runs now: it may end in some way before all has. For a handler of signals, which takes no lock."""
        self._interrupted = self._interrupted or tuple(self._running)

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: Any) -> tuple[str, str, str] | None:
        """Print no letter for what passes or fails: the lines say how many did, and which."""
        return (report.outcome, "", "") if report.when == "call" and not report.skipped else None

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self) -> None:
        self.rest()
        if self._record:
            said = {
                "alone": self._alone,
                "left": +self._left,
                "running": list(self._interrupted or self._running),
                "tests": [asdict(one) for one in self._ended()],
            }
            self._record.write_text(json.dumps(said))

    # The line.

    def _ended(self) -> list[Record]:
        return [one for nodeid, one in self._records.items() if nodeid not in self._running]

    # For who forks: a lock that another thread holds then is held for ever in the fork.

    def go_on(self) -> None:
        """Say again and again how far the run is, in a thread."""
        self._over.clear()
        self._ticking = threading.Thread(target=self._tick, daemon=True)
        self._ticking.start()

    def rest(self) -> None:
        """Say nothing, and have no thread, until `go_on`."""
        self._over.set()
        if self._ticking is not None:
            self._ticking.join()
            self._ticking = None

    def _tick(self) -> None:
        while not self._over.wait(self._every):
            with self._lock:
                line = self.line(time.monotonic())
            self._write(line)

    def line(self, now: float) -> str:
        """How many tests have passed, how many are left and where, and which one has run for longest."""
        outcomes = Counter(one.outcome for one in self._ended())
        failed = f"{outcomes['failed']} FAILED" if outcomes["failed"] else "none failed"
        if not self._left:
            return f"{clock(now - self._began):>6}  collecting"
        words = [f"{clock(now - self._began):>6}  {outcomes['passed']:,} passed, {failed}", f"left: {left(self._left)}"]
        if self._running:
            slowest = min(self._running.items(), key=lambda item: item[1])
            words.append(f"for {now - slowest[1]:.0f} s {slowest[0]}")
        return "; ".join(words)

    def _write(self, line: str) -> None:
        """Write one whole line, from whichever thread, and never into what pytest captures of a test."""
        os.write(self._output, f"{line}\n".encode())


def left(counts: Mapping[str, int]) -> str:
    """Say how many tests of each suite are left."""
    return ", ".join(f"{count:,} {suite}" for suite, count in counts.items() if count) or "nothing"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", type=Path, metavar="FILE", help="write the outcome and seconds of each test there")
    parser.addoption("--say-every", type=float, default=EVERY_SECONDS, metavar="SECONDS", help="say how far the run is")


def pytest_configure(config: pytest.Config) -> None:
    progress = Progress(config.getoption("--record"), config.getoption("--say-every"))
    config.pluginmanager.register(progress, "progress")
