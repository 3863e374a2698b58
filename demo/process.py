"""Child processes that never outlive the demo, however it ends.

Each child leads a session of its own, so a Ctrl-C in the terminal reaches the demo alone, which then ends the children.
Should the demo itself be killed, the kernel signals each child (prctl(2), PR_SET_PDEATHSIG). A process whose own parent
died comes to the demo (PR_SET_CHILD_SUBREAPER), which ends it too: an Envoy outlives a killed control plane by intent.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_GRACE = 8.0
"""Seconds between asking a child to end and killing it."""


class DemoError(Exception):
    """The demo cannot go on: a process did not start, or ended on its own. The message says which and why."""


class Process:
    """One child and whatever it starts itself. Its output goes to a file.

    `end_with` is the signal that ends it: SIGTERM for one that has children of its own to end.
    """

    def __init__(self, name: str, command: Sequence[str], log: Path, end_with: signal.Signals) -> None:
        self.name = name
        self.log = log
        self._end_with = end_with
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Safe: the demo has no threads when it starts a process.
                preexec_fn=_dies_with_parent(end_with),  # noqa: PLW1509
            )

    @property
    def alive(self) -> bool:
        """Whether it still runs. One that ended stays a zombie until `stop`, so that its id stays its own."""
        return os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def check(self) -> None:
        """Raise DemoError if it ended."""
        if not self.alive:
            raise DemoError(f"{self.name} ended on its own; its last words:\n{self.last_words()}")

    def kill(self) -> None:
        """SIGKILL it and its group, now."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, signal.SIGKILL)

    def wait(self) -> None:
        """Wait until it has ended."""
        os.waitid(os.P_PID, self._popen.pid, os.WEXITED | os.WNOWAIT)

    def stop(self) -> None:
        """End it, wait a few seconds if need be, then kill what is left of its group. May be called again."""
        if self._popen.returncode is not None:
            return
        os.kill(self._popen.pid, self._end_with)
        deadline = time.monotonic() + _GRACE
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        self.kill()
        self._popen.wait()

    def last_words(self, lines: int = 12) -> str:
        """Return the end of its output."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Processes:
    """All children; leaving the context ends them, the latest first."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[Process] = []

    def start(self, name: str, command: Sequence[str], end_with: signal.Signals = signal.SIGKILL) -> Process:
        """Start a child."""
        process = Process(name, command, self._logs / f"{name}.log", end_with)
        self._started.append(process)
        return process

    def __enter__(self) -> Processes:
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        return self

    def __exit__(self, *_: object) -> None:
        # Blocking on purpose: a second Ctrl-C must not interrupt it.
        for process in reversed(self._started):
            process.stop()
        for orphan in _children():
            os.kill(orphan, signal.SIGKILL)
            os.waitpid(orphan, 0)


def _dies_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Return what the child runs between fork and exec."""
    parent = os.getpid()

    def child() -> None:
        _prctl(_PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # it died before the call
            os._exit(1)

    return child


def _prctl(option: int, argument: int) -> None:
    """Call prctl(2). Only Linux has it; elsewhere a killed demo leaves its children."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, argument, 0, 0, 0)


def _children() -> tuple[int, ...]:
    """Return the ids of the processes that this one is the parent of."""
    children = Path("/proc/thread-self/children")
    return tuple(map(int, children.read_text().split())) if children.exists() else ()
