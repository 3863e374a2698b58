"""A pytest plugin: the tests in several processes that are forked once everything is collected.

With `-p tests.support.workers --workers N`. Whole files go to a process, in their order, and the next one to whichever
has nothing left. A worker is this very pytest session, which goes on in a fork: it has collected what this process has,
sets up and tears down for itself, and what becomes of each test is told here as if it had run here.

It says what it does over a pipe, in tuples that begin with a word. It is answered with the numbers of a file's tests,
and with None when it is to end.
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import signal
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest

from tests.support import forked

_WITH_PARENT = 1  # prctl(2), PR_SET_PDEATHSIG

Location = tuple[str, int | None, str]


@dataclass(slots=True)
class Worker:
    """A worker as its parent knows it. `tests` are the numbers of those that it has not begun."""

    name: str
    pid: int
    channel: Connection
    tests: deque[int]
    running: tuple[str, Location] | None = None
    has_ended: bool = False


def folder_of_the_run(config: pytest.Config, factory: pytest.TempPathFactory) -> Path:
    """The folder for temporary files that all processes of a run have in common."""
    own = factory.getbasetemp()
    return own.parent if is_worker(config) else own


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker. pytest itself asks so: `workerinput` is what pytest-xdist calls it."""
    return hasattr(config, "workerinput")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--workers", type=int, default=0, metavar="N", help="run whole files in so many processes")


def pytest_configure(config: pytest.Config) -> None:
    # Who debugs has the terminal, from which no worker may read: it would be stopped.
    if config.getoption("--workers") and not config.getoption("usepdb"):
        config.pluginmanager.register(Distribution(config.getoption("--workers")), "distribution")


class Distribution:
    """Forks the workers, gives them files, and passes on what they say."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._workers: dict[Connection, Worker] = {}
        self._files: deque[deque[int]] = deque()
        self._troubles: list[str] = []
        self._is_interrupted = False
        self._progress: Any = None
        self._names = (f"worker-{number}" for number in itertools.count(1))

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        """Run the tests. Returns in every worker, too, once it is told to end."""
        if session.config.option.collectonly or session.testsfailed or not session.items:
            return None  # pytest says what is amiss, if anything is.
        self._files.extend(_files_of(session.items))
        forked.share()
        self._progress = session.config.pluginmanager.getplugin("progress")
        # Workers are no part of the terminal's job, so that each is interrupted once, and has the time to clean up.
        before = signal.signal(signal.SIGINT, self._interrupt)
        try:
            worker = self._serve(session)
        finally:
            signal.signal(signal.SIGINT, before)
            self._signal(signal.SIGKILL)  # There are some only if something of this process is amiss.
        if worker:
            return worker.run()
        if self._is_interrupted:
            raise KeyboardInterrupt
        if self._troubles:
            session.shouldfail = "; ".join(self._troubles)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        return True

    def _serve(self, session: pytest.Session) -> InWorker | None:
        """Fork the workers, and hear them until all have ended; return in each what it does."""
        for _ in range(min(self._count, len(self._files))):
            if worker := self._fork(session):
                return worker
        while self._workers:
            for channel in wait(list(self._workers)):
                assert isinstance(channel, Connection)
                speaker = self._workers[channel]
                try:
                    said = channel.recv()
                except (EOFError, OSError):  # The latter when it died in the middle of a sentence.
                    if worker := self._after(session, speaker):
                        return worker
                else:
                    self._hear(session, speaker, said)
            if session.shouldfail or session.shouldstop:
                self._stop()
        return None

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """End with a code that is not that of failed tests: to repeat these says nothing of what else is amiss."""
        if self._troubles and not self._is_interrupted:
            session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def _interrupt(self, *_: object) -> None:
        """Have the workers clean up and end; whoever interrupts twice does not want to wait for that."""
        if self._progress:
            self._progress.is_interrupted()
        self._signal(signal.SIGKILL if self._is_interrupted else signal.SIGINT)
        self._is_interrupted = True

    def _stop(self) -> None:
        self._files.clear()
        for worker in self._workers.values():
            worker.tests.clear()
            with contextlib.suppress(OSError):
                worker.channel.send(None)

    def _signal(self, number: signal.Signals) -> None:
        self._files.clear()
        for worker in self._workers.values():
            worker.tests.clear()
            os.kill(worker.pid, number)

    def _hear(self, session: pytest.Session, worker: Worker, said: tuple[Any, ...]) -> None:
        hook = session.config.hook
        match said:
            case ("wants",):
                worker.tests = self._files.popleft() if self._files else deque()
                with contextlib.suppress(OSError):
                    worker.channel.send(tuple(worker.tests) or None)
            case ("begins", nodeid, location):
                worker.running = (nodeid, location)
                if worker.tests:
                    worker.tests.popleft()
                hook.pytest_runtest_logstart(nodeid=nodeid, location=location)
            case ("report", data):
                report = hook.pytest_report_from_serializable(config=session.config, data=data)
                hook.pytest_runtest_logreport(report=report)
            case ("is over", nodeid, location):
                worker.running = None
                hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)
            case ("trouble", text):
                self._troubles.append(f"{worker.name}: {text}")
            case ("ends",):
                worker.has_ended = True

    def _after(self, session: pytest.Session, worker: Worker) -> InWorker | None:
        """Forget a worker that has ended. One that did so in a test failed it, and another has what it left."""
        del self._workers[worker.channel]
        worker.channel.close()
        _, status = os.waitpid(worker.pid, 0)
        # One that ends by itself may have been told to by a test: `pytest.exit`, KeyboardInterrupt, `shouldstop`.
        if worker.has_ended and (self._is_interrupted or (worker.running is None and not worker.tests)):
            return None
        words = f"{worker.name} {'ended' if worker.has_ended else 'died'}"
        words = f"{words} (exit code {os.waitstatus_to_exitcode(status)})"
        if worker.running is None:
            self._troubles.append(f"{words}, and left {len(worker.tests)} of its tests" if worker.tests else words)
            return None
        nodeid, location = worker.running
        report = pytest.TestReport(nodeid, location, {}, "failed", f"{words} while it ran this", "call")
        session.config.hook.pytest_runtest_logreport(report=report)
        session.config.hook.pytest_runtest_logfinish(nodeid=nodeid, location=location)
        if not worker.tests:
            return None
        self._files.appendleft(worker.tests)
        return self._fork(session)

    def _fork(self, session: pytest.Session) -> InWorker | None:
        """Fork a worker; return what it does in it, and nothing here."""
        name, config = next(self._names), session.config
        progress = self._progress
        if progress:
            progress.rest()
        _await_no_thread()
        base = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        ours, theirs = Pipe()
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # Until whose it is has been settled.
        if pid := os.fork():
            theirs.close()
            self._workers[ours] = Worker(name, pid, ours, deque())
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
            if progress:
                progress.go_on()
            return None
        for channel in (ours, *self._workers):
            channel.close()
        self._workers.clear()
        return InWorker(session, theirs, base / name)


def _await_no_thread() -> None:
    """Wait until one that was joined has left the kernel, too. Raises UsageError when there is another."""
    for _ in range(500):
        count = sum(1 for _ in Path("/proc/self/task").iterdir())
        if count == 1:
            return
        time.sleep(0.01)
    raise pytest.UsageError(f"fork(2) copies no thread, and {count - 1} were started while modules were imported")


def _files_of(items: list[pytest.Item]) -> Iterator[deque[int]]:
    """The numbers of the tests of each file."""
    for _, numbers in itertools.groupby(range(len(items)), lambda number: items[number].path):
        yield deque(numbers)


class InWorker:
    """What a worker does: it is registered in place of what its parent does with the same session."""

    def __init__(self, session: pytest.Session, channel: Connection, folder: Path) -> None:
        self._session = session
        self._channel = channel
        os.setpgid(0, 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        ctypes.CDLL(None).prctl(_WITH_PARENT, signal.SIGINT)
        config = session.config
        config.workerinput = {}  # type: ignore[attr-defined]
        plugins = config.pluginmanager
        for name in ("distribution", "progress", "terminalreporter"):
            if plugin := plugins.getplugin(name):
                plugins.unregister(plugin)
        # It has a file that is not the parent's, as that of what is captured.
        nowhere = os.fdopen(os.open(os.devnull, os.O_WRONLY), "w")
        reporter = pytest.TerminalReporter(config, nowhere)
        plugins.register(reporter, "terminalreporter")
        reporter.pytest_sessionstart(session)
        capturing = plugins.getplugin("capturemanager")
        assert capturing is not None
        capturing.stop_global_capturing()
        capturing.start_global_capturing()
        folder.mkdir(mode=0o700)
        config._tmp_path_factory._basetemp = folder  # type: ignore[attr-defined]
        plugins.register(self, "in worker")

    def run(self) -> bool:
        """Run the files that it is given until there are no more."""
        session = self._session
        while numbers := self._next():
            # After the last test of a file everything is torn down that does not belong to the whole session.
            for item, following in itertools.pairwise([*(session.items[number] for number in numbers), session]):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                if session.shouldfail:
                    raise session.Failed(session.shouldfail)
                if session.shouldstop:
                    raise session.Interrupted(session.shouldstop)
                if self._channel.poll():  # It is told to end.
                    return True
        return True

    def _next(self) -> tuple[int, ...] | None:
        self._channel.send(("wants",))
        numbers: tuple[int, ...] | None = self._channel.recv()
        return numbers

    def pytest_runtest_logstart(self, nodeid: str, location: Location) -> None:
        self._channel.send(("begins", nodeid, location))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        config = self._session.config
        self._channel.send(("report", config.hook.pytest_report_to_serializable(config=config, report=report)))

    def pytest_runtest_logfinish(self, nodeid: str, location: Location) -> None:
        self._channel.send(("is over", nodeid, location))

    def pytest_internalerror(self, excrepr: object) -> None:
        self._channel.send(("trouble", str(excrepr)))

    # What is amiss when everything is torn down belongs to no test.

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self) -> Iterator[None]:
        with self._told():
            yield

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_unconfigure(self) -> Iterator[None]:
        with self._told():
            yield
        self._channel.send(("ends",))

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # What `pytest.fail` raises is no Exception.
            self._channel.send(("trouble", f"{type(error).__name__}: {error}"))
