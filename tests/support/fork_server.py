"""`beamlit` without the seconds of imports that each start would cost: forked from a process that has made them.

So are the model servers of the tests, of which a run starts hundreds.

The server is one process for each that starts programs. It ends with it, and what it forked ends with the server. A
request is one datagram: program, arguments, environment and context, with three descriptors: its standard output, its
standard error and the socket on which the new process says who it is, and the server how it ended.

What a process inherits and no environment changes is the server's: its umask, and the seed of its hashes. Signals that
whoever runs the tests ignores (`nohup`, a job in the background) have their default effect.

The number of a process is no other's while its client may signal it: the server waits for it once the client is done.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from controller.api.contract.route import ReplicaCheck
from controller.cli.main import main
from controller.install import crd
from tests.support.data_plane import model_server
from tests.support.processes import ROOT, ProcessEndedError, await_stopped
from tests.support.routes import A, a_remote, a_route_with, over_tls, ready, with_key, with_token
from xds_server.resources.access_log import AccessLog
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.stream.server import reflection

_LONGEST_REQUEST = 1 << 20
_DIE_WITH_PARENT = 1  # prctl(2), PR_SET_PDEATHSIG
_IMPORTED = (
    "controller.programs.check",
    "controller.programs.controller",
    "controller.programs.gateway",
    "controller.programs.restore",
    "controller.programs.run",
    "controller.programs.status",
    "controller.programs.xds_server",
    # Those that are imported at use by what these import.
    "anyio._backends._asyncio",
    "kubernetes.aio.client.rest",
    "kubernetes.aio.config",
)
BEAMLIT, MODEL_SERVER = "beamlit", "model_server"
"""The programs there are."""


class Forked:
    """One program, as `tests.support.processes.Child` is a process. What it prints goes to its log, too, or apart.

    `context` is the object of the command's context: anything that can be pickled.
    """

    program = BEAMLIT

    def __init__(
        self,
        arguments: Sequence[object],
        log: Path,
        environment: Mapping[str, str] | None = None,
        *,
        output: Path | None = None,
        context: object = None,
    ) -> None:
        self.log = log
        self._code: int | None = None
        words = tuple(map(str, arguments))
        request = pickle.dumps((self.program, words, {**os.environ, **(environment or {})}, context))
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


@functools.cache
def _server() -> socket.socket:
    """Start the server of this process; return where it takes requests."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = (sys.executable, "-m", "tests.support.fork_server", str(theirs.fileno()))
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(theirs.fileno(),),
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _import_everything() -> None:
    """Import what the commands import when they run, and work out what each of them would.

    Nothing of it may start a thread: fork(2) copies none.
    """
    for module in _IMPORTED:
        importlib.import_module(module)
    reflection.described()
    crd.definitions()
    _translate_a_route()
    threads = list(Path("/proc/self/task").iterdir())
    assert len(threads) == 1, threads
    # What is there stays: no later collection looks at it, and its pages are shared.
    gc.collect()
    gc.freeze()


def _translate_a_route() -> None:
    """Have the generated classes of Envoy's API made ready, as each is when it is used first: a third of a start."""
    remotes = (
        a_remote("one.example", name="remote", tls=over_tls(ca="ca", certificate="own"), auth=with_token()),
        a_remote("two.example", name="remote-two", auth=with_key()),
    )
    check = ReplicaCheck(path="/health")
    settings = EnvoySettings(access_log=AccessLog.ALL, shared_port=80, installation="warm")
    for shares in ({"remote": 50}, {"remote": 30, "remote-two": 30}, {}):
        route = a_route_with(*remotes, shares=shares, health_check=check, max_requests_per_replica=8)
        Translator(settings).resources(A, route, ready("10.0.0.1"))


def _serve(requests: socket.socket) -> bytes:
    """Fork for each request; return it in the new process, and nothing once nobody asks any more."""
    me = os.getpid()
    running: dict[int, tuple[int, int]] = {}
    ended: dict[int, int] = {}
    poll = select.poll()
    poll.register(requests, select.POLLIN)
    while True:
        for descriptor, _ in poll.poll():
            if descriptor in running:
                poll.unregister(descriptor)
                pid, told = running.pop(descriptor)
                _close(descriptor)
                _tell(told, _exit_code(pid))
                ended[told] = pid
                poll.register(told, 0)  # It is told when the other end is closed, whatever it asks for.
                continue
            if descriptor in ended:
                poll.unregister(descriptor)
                os.waitpid(ended.pop(descriptor), 0)
                _close(descriptor)
                continue
            request, descriptors, _, _ = socket.recv_fds(requests, _LONGEST_REQUEST, 3)
            if not request:
                return b""
            output, errors, told = descriptors
            if not (pid := os.fork()):
                requests.detach()
                _become_a_program(me, output, errors, told)
                return request
            _close(output, errors)
            end = os.pidfd_open(pid)
            running[end] = (pid, told)
            poll.register(end, select.POLLIN)


def _exit_code(pid: int) -> int:
    """How a process ended that is still to be waited for, below 0 a signal."""
    how = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert how is not None
    return how.si_status if how.si_code == os.CLD_EXITED else -how.si_status


def _become_a_program(parent: int, output: int, errors: int, told: int) -> None:
    """Leave the server's session, descriptors and signals, and let the kernel end this process with the server."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    os.dup2(output, 1)
    os.dup2(errors, 2)
    _tell(told, os.getpid())
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))


def _tell(told: int, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # Nobody wants to know.
        os.write(told, b"%d" % number)


def _close(*descriptors: int) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _run(request: bytes) -> None:
    program, arguments, environment, context = pickle.loads(request)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    sys.argv = [program, *arguments]
    if program == MODEL_SERVER:
        model_server.main(*arguments)
    else:
        main.main(arguments, program, obj=context)


if __name__ == "__main__":
    _import_everything()
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if asked:
        _run(asked)
