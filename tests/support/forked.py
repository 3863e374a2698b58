"""Our programs without the seconds of imports that each start would cost: asked of `fork_server`.

So are the model servers of the tests, of which a run starts hundreds. Each process that starts programs has a server,
which ends with it; what that forked ends with the server. Processes that were told to `share` have theirs forked from
one that has imported everything for all of them.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.support.processes import ROOT, ProcessEndedError, await_stopped
from tests.support.timing import PATIENT

BEAMLIT, MODEL_SERVER, ELECTED = "beamlit", "model_server", "elected"
"""The programs there are."""


class Forked:
    """One program, as `tests.support.processes.Child` is a process. What it prints goes to its log, too, or apart.

    `context` is the object of the command's context, the product's times: anything that can be pickled. `limits` are
    its own, soft and hard, by their names in the module `resource`.
    """

    program = BEAMLIT

    def __init__(
        self,
        arguments: Sequence[object],
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        output: Path | None = None,
        context: object = PATIENT,
        limits: Mapping[int, tuple[int, int]] | None = None,
    ) -> None:
        self.log = log
        self._code: int | None = None
        words = tuple(map(str, arguments))
        variables = {**os.environ, **(environment or {})}
        request = pickle.dumps((self.program, words, variables, dict(limits or {}), context))
        self._told, told = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with told, (output or log).open("ab") as out, log.open("ab") as errors:
            socket.send_fds(_server(), [request], [out.fileno(), errors.fileno(), told.fileno()])
        weakref.finalize(self, self._told.close)
        self.pid = int(self._told.recv(64) or 0)
        assert self.pid, "the fork server ended; why stands in its standard error"

    @property
    def alive(self) -> bool:
        return self._ended(0) is None

    def kill(self) -> None:
        """SIGKILL it, and whatever it started in its session, and wait until it is gone.

        Also what is left of the session of one that has ended, until `terminate`.
        """
        if self._told.fileno() >= 0:
            # The server, and what it forked, may have ended just now.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
            self._ended(None)
            self._told.close()

    def send(self, number: signal.Signals) -> None:
        """Signal it alone. One that is to stop has stopped then."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)
                if number is signal.SIGSTOP:
                    await_stopped(self.pid)

    def terminate(self, within: float = 10.0) -> int:
        """Ask it to end and return its exit code; kill it if it takes longer than `within` seconds."""
        self.send(signal.SIGTERM)
        if self._ended(within) is None:
            self.kill()
        self._told.close()
        assert self._code is not None
        return self._code

    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-3000:]

    def _ended(self, within: float | None) -> int | None:
        """Wait for its end for so many seconds; return its exit code, below 0 a signal, and None if it goes on."""
        if self._code is None and _readable(self._told, within):
            said = self._told.recv(64)
            if not said:  # The server ended, and so did whatever it forked.
                self._told.close()
            self._code = int(said or -signal.SIGKILL)
        return self._code


class ForkedModelServer(Forked):
    """One `tests.support.data_plane.model_server`, which accepts connections from the start.

    Raises ProcessEndedError when it cannot.
    """

    program = MODEL_SERVER

    def __init__(self, arguments: Sequence[object], log: Path) -> None:
        ready, said = os.pipe()
        with os.fdopen(ready, "rb") as answer:
            with os.fdopen(said, "wb") as output:
                super().__init__(arguments, log, output=Path(f"/proc/self/fd/{output.fileno()}"))
            if answer.readline().strip() != b"ready":
                self.kill()
                raise ProcessEndedError(f"a model server did not start:\n{self.last_words()}")


def _readable(one: socket.socket, within: float | None) -> bool:
    """Wait until there is something to read. Not by select(2), which knows no descriptor above 1023."""
    poll = select.poll()
    poll.register(one, select.POLLIN)
    return bool(poll.poll(None if within is None else within * 1000))


_shared: list[socket.socket] = []
"""Where this process and those that it forks ask for a server of their own; nowhere unless they `share`."""


def share() -> None:
    """Have one process import everything, once it is asked to, for this process and for all that it forks."""
    if not _shared:
        _shared.append(_start("share"))


@functools.cache
def _server() -> socket.socket:
    """Start the server of this process; return where it takes requests."""
    if not _shared:
        return _start("serve")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        socket.send_fds(_shared[0], [b"one more"], [theirs.fileno()])

    def end() -> None:
        ours.shutdown(socket.SHUT_WR)
        while ours.recv(64):  # Until nobody is at the other end.
            pass
        ours.close()

    atexit.register(end)
    return ours


def _start(task: str) -> socket.socket:
    """Start `fork_server`, which ends once nobody has what is returned: at the end of this process at the latest."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            (sys.executable, "-m", "tests.support.fork_server", task, str(theirs.fileno())),
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(theirs.fileno(),),
        )

    def end() -> None:
        ours.close()
        process.wait()  # At once in a fork of this process, whose child it is not.

    atexit.register(end)
    return ours
