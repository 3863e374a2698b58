"""Processes that never outlive who started them: ended on the way out, by the kernel should that one be killed.

Each leads a session of its own, so a Ctrl-C in the terminal reaches this process alone, which then ends the others.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tests.support.waiting import Deadline

ROOT = Path(__file__).parents[2]

_GRACE = 10.0
"""Seconds between asking a process to end and killing it."""
_STAYS = 60.0
"""Seconds that a program has to end after the run that it is part of, before it is said to run still."""
_PR_SET_CHILD_SUBREAPER = 36
_KIB = 1024

# Runs in the child before its program: prctl(2), PR_SET_PDEATHSIG. A program of its own and not a function between fork
# and exec, since this process has threads (gRPC's).
_DIES_WITH_PARENT = """
import ctypes, os, signal, sys
parent, number, cpus, *command = sys.argv[1:]
ctypes.CDLL(None).prctl(1, int(number))
os.getppid() == int(parent) or os._exit(1)
if cpus:
    os.sched_setaffinity(0, map(int, cpus.split(",")))
# Whoever runs the tests may ignore them: nohup does, and a shell for what it runs in the background. That is meant for
# what a terminal signals, which no session of its own is part of.
if os.getsid(0) == os.getpid():
    for ignored in (signal.SIGINT, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_DFL)
os.execvp(command[0], command)
"""


class ProcessEndedError(AssertionError):
    """A process did not start, or ended on its own. The message says which, and its last words."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a running process uses, as Linux tells it."""

    pid: int

    def cpu_seconds(self) -> float:
        """Return the CPU time that all its threads have used, user and system. Raises OSError when it is gone."""
        clock = ctypes.c_int()
        # clock_getcpuclockid(3): to the nanosecond, where /proc has hundredths.
        if error := ctypes.CDLL(None).clock_getcpuclockid(self.pid, ctypes.byref(clock)):
            raise OSError(error, f"no CPU clock of process {self.pid}: {os.strerror(error)}")
        return time.clock_gettime(clock.value)

    def resident_bytes(self) -> int:
        """Return how much memory it holds now. Raises OSError when it is gone."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        return int(found[1]) * _KIB if found else 0


def ends_with_me(
    command: Sequence[object], end_with: signal.Signals = signal.SIGKILL, cpus: frozenset[int] = frozenset()
) -> list[str]:
    """Return the command by which a program is signalled when this process ends, for who starts it without a `Child`.

    In the main thread: the kernel takes the end of the thread that started it for that of its parent.
    """
    where = (os.getpid(), int(end_with), ",".join(map(str, sorted(cpus))))
    return [sys.executable, "-I", "-S", "-c", _DIES_WITH_PARENT, *map(str, (*where, *command))]


def run(
    command: Sequence[object],
    *,
    check: bool = False,
    input: Any = None,  # noqa: A002, as subprocess.run calls it
    capture_output: bool = False,
    timeout: float | None = None,
    **options: Any,
) -> subprocess.CompletedProcess[Any]:
    """Do as `subprocess.run` does, for what takes long: when it is broken off, all of its session is killed.

    Should this process be killed, the kernel kills the command; what that started ends for itself.
    """
    if capture_output:
        options |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        options["stdin"] = subprocess.PIPE
    with subprocess.Popen(ends_with_me(command), start_new_session=True, **options) as process:
        try:
            output, errors = process.communicate(input, timeout)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    done = subprocess.CompletedProcess(tuple(map(str, command)), process.returncode, output, errors)
    if check:
        done.check_returncode()
    return done


class Child:
    """One process. Its standard error goes to a file, its standard output too unless it says "ready" there.

    It runs on any of `cpus`, by default on those of this process. `end_with` is the signal that ends it, also when this
    process is killed: SIGTERM for one that has processes of its own to end.
    """

    def __init__(
        self,
        command: Sequence[object],
        log: Path,
        *,
        says_ready: bool = False,
        cpus: frozenset[int] = frozenset(),
        end_with: signal.Signals = signal.SIGKILL,
    ) -> None:
        self.name = Path(str(command[0])).name
        self.log = log
        self._end_with = end_with
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                ends_with_me(command, end_with, cpus),
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if says_ready else output,
                stderr=output,
                start_new_session=True,
            )
        if says_ready:
            assert self._process.stdout is not None
            with self._process.stdout as stdout:
                if stdout.readline().strip() != b"ready":
                    self.kill()
                    raise ProcessEndedError(f"{command[0]} did not start:\n{self.last_words()}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def usage(self) -> Usage:
        """What it uses, while it runs."""
        return Usage(self.pid)

    @property
    def alive(self) -> bool:
        """Whether it still runs. One that ended keeps its id until `kill`, `terminate` or `stop`."""
        if self._process.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    @property
    def ended_by_itself(self) -> bool:
        """Whether it ended, and neither `kill`, `terminate` nor `stop` has seen to it."""
        return self._process.returncode is None and not self.alive

    def check(self) -> None:
        """Raise ProcessEndedError if it ended."""
        if not self.alive:
            raise ProcessEndedError(f"{self.name} ended on its own; its last words:\n{self.last_words()}")

    def kill(self) -> None:
        """SIGKILL it, and whatever it started in its session, and wait until it is gone."""
        if self._process.returncode is None:
            # Its own number is no other's: it has not been waited for.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Signal it alone. One that is to stop has stopped then."""
        if self.alive:
            os.kill(self.pid, number)
            if number is signal.SIGSTOP:
                await_stopped(self.pid)

    def terminate(self, within: float = _GRACE) -> int:
        """Ask it to end and return its exit code; kill it if it takes longer than `within` seconds."""
        self.send(signal.SIGTERM)
        self._await_end(within)
        if self.alive:
            self.kill()
        self._process.wait()
        return self._process.returncode

    def stop(self) -> None:
        """End it with its signal, and kill what is left of its session. May be called again."""
        self.send(self._end_with)
        self._await_end(_GRACE)
        self.kill()

    def _await_end(self, within: float) -> None:
        """Block: on the way out a second Ctrl-C must not get between."""
        deadline = time.monotonic() + within
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.01)

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]


class Children:
    """Processes by name, each with a log in one folder; leaving the context ends them, the latest first."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._started: list[Child] = []

    def start(
        self,
        name: str,
        command: Sequence[object],
        *,
        cpus: frozenset[int] = frozenset(),
        end_with: signal.Signals = signal.SIGKILL,
    ) -> Child:
        """Start one."""
        log = self.folder / f"{file_name(name)}.log"
        return self.add(name, Child(command, log, cpus=cpus, end_with=end_with))

    def add(self, name: str, child: Child) -> Child:
        """Take one that runs."""
        child.name = name
        self._started.append(child)
        return child

    def check(self) -> None:
        """Raise ProcessEndedError if one ended."""
        for child in self._started:
            child.check()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for child in reversed(self._started):
            child.stop()


@contextlib.contextmanager
def adopting_orphans() -> Iterator[None]:
    """End what comes to this process because its own parent ended: an Envoy outlives a killed `beamlit run` by intent.

    prctl(2), PR_SET_CHILD_SUBREAPER. For a program whose other children have ended when the block does.
    """
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    before = children_of()
    try:
        yield
    finally:
        for orphan in children_of() - before:
            os.kill(orphan, signal.SIGKILL)
            os.waitpid(orphan, 0)


def processes_of(folder: Path) -> Mapping[int, str]:
    """Return the ids and command lines of all running processes that name this folder in their arguments."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # It may end meanwhile.
            command = (process / "cmdline").read_bytes()
            if str(folder).encode() in command:
                found[int(process.name)] = command.replace(b"\0", b" ").decode().strip()
    return found


def kill_all(folder: Path) -> None:
    """SIGKILL all running processes that name this folder, and wait until they are gone. Raises TimeoutError.

    A process that was sent SIGKILL runs until one of its threads is scheduled.
    """
    deadline = Deadline(time.monotonic(), _GRACE)
    while running := processes_of(folder):
        if deadline.has_passed(time.monotonic()):
            raise TimeoutError(f"{running} were sent SIGKILL and go on after {_GRACE} s")
        for pid in running:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.001)


def staying(folder: Path, within: float = _STAYS) -> Mapping[int, str]:
    """Wait until no process names the folder: a shared API server, nobody's child, may be ending still.

    Return those that go on all the same.
    """
    deadline = Deadline(time.monotonic(), within)
    while (found := processes_of(folder)) and not deadline.has_passed(time.monotonic()):
        time.sleep(deadline.pause(time.monotonic()))
    return found


def await_stopped(process: int, within: float = _GRACE) -> None:
    """Wait until a process that was sent SIGSTOP has stopped, or is gone; raise TimeoutError after so many seconds.

    The kernel stops it when one of its threads takes the signal; until that is scheduled, the others go on.
    """
    deadline = Deadline(time.monotonic(), within)
    while any(state not in _AT_REST for state in _thread_states(process)):
        if deadline.has_passed(time.monotonic()):
            raise TimeoutError(f"process {process} was sent SIGSTOP and goes on after {within} s")
        time.sleep(0.001)


_AT_REST = frozenset("TZX")
"""Stopped, or dead: proc_pid_stat(5)."""


def _thread_states(process: int) -> Iterator[str]:
    for stat in Path(f"/proc/{process}/task").glob("*/stat"):
        with contextlib.suppress(OSError):  # It has just ended.
            yield stat.read_text().rpartition(")")[2].split()[0]


def file_name(name: str) -> str:
    """Return a name as that of a file."""
    return name.replace("/", "-").replace(" ", "-").replace(":", "")


def children_of(process: int | None = None) -> frozenset[int]:
    """Return the ids of what a process started: what its main thread did, or without one what this thread did."""
    thread = f"{process}/task/{process}" if process else "thread-self"
    return frozenset(map(int, Path(f"/proc/{thread}/children").read_text().split()))
