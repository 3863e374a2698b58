"""Forks `beamlit` and the model servers of the tests, for `forked`, from a process that has made their imports.

A request is one datagram: program, arguments, environment and context, with three descriptors: its standard output, its
standard error and the socket on which the new process says who it is, and the server how it ended. The server ends when
nobody can ask it any more, and what it forked ends with it.

What a process inherits and no environment changes is the server's: its umask, and the seed of its hashes. Signals that
whoever runs the tests ignores (`nohup`, a job in the background) have their default effect.

The number of a process is no other's while its client may signal it: the server waits for it once the client is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import os
import pickle
import select
import signal
import socket
import sys
import time
from pathlib import Path

from controller.api.contract.route import ReplicaCheck
from controller.cli.main import main
from controller.install import crd
from tests.support.data_plane import model_server
from tests.support.forked import MODEL_SERVER
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


def _share(requests: socket.socket) -> bytes:
    """Fork a server for each process that asks for one, once the first does."""
    if not requests.recv(1, socket.MSG_PEEK):
        return b""
    _import_everything()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Nobody asks how a server ended.
    while True:
        request, descriptors, _, _ = socket.recv_fds(requests, _LONGEST_REQUEST, 1)
        if not request:
            return b""
        (theirs,) = descriptors
        if not os.fork():
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            requests.close()
            os.setsid()
            return _serve(socket.socket(fileno=theirs))
        os.close(theirs)


if __name__ == "__main__":
    _task, _socket = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
    if _task == "share":
        asked = _share(_socket)
    else:
        _import_everything()
        asked = _serve(_socket)
    if asked:
        _run(asked)
