"""Processes that never outlive the tests: stopped on the way out, killed by the kernel should the tests be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Runs in the child before its program: prctl(2), PR_SET_PDEATHSIG. A program of its own and not a function between fork
# and exec, since this process has threads (gRPC's).
_DIES_WITH_PARENT = (
    "import ctypes, os, sys\n"
    "ctypes.CDLL(None).prctl(1, 9)\n"
    "os.getppid() == int(sys.argv[1]) or os._exit(1)\n"
    "os.execv(sys.argv[2], sys.argv[2:])"
)


class Child:
    """One process. Its standard error goes to a file, its standard output too unless it says "ready" there."""

    def __init__(self, command: Sequence[object], log: Path, *, says_ready: bool = False) -> None:
        self.log = log
        launch = [sys.executable, "-I", "-S", "-c", _DIES_WITH_PARENT, str(os.getpid()), *map(str, command)]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                launch,
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
                    raise AssertionError(f"{command[0]} did not start:\n{self.last_words()}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL it, and whatever it started in its session, and wait until it is gone."""
        if self._process.returncode is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()

    def send(self, number: signal.Signals) -> None:
        """Signal it alone."""
        self._process.send_signal(number)

    def terminate(self, within: float = 10.0) -> int:
        """Ask it to end and return its exit code; kill it if it takes longer than `within` seconds."""
        if self.alive:
            self._process.terminate()
            try:
                self._process.wait(within)
            except subprocess.TimeoutExpired:
                self.kill()
        return self._process.returncode

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]
