"""Forks `beamlit` and the model servers of the tests, for `forked`, from a process that has made their imports.

What these are, and how they are made ready, is in `forked_programs`.

A request is one datagram: program, arguments, environment, limits and context, with three descriptors: its standard
output, its standard error and the socket on which the new process says who it is, and the server how it ended. The
server ends when nobody can ask it any more, and what it forked ends with it.

What a process inherits and no environment changes is the server's: its umask, and the seed of its hashes. Signals that
whoever runs the tests ignores (`nohup`, a job in the background) have their default effect.

The number of a process is no other's while its client may signal it: the server waits for it once the client is done.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import pickle
import resource
import select
import signal
import socket
import sys
import time

_LONGEST_REQUEST = 1 << 20
_DIE_WITH_PARENT = 1  # prctl(2), PR_SET_PDEATHSIG
_PROGRAMS = "tests.support.forked_programs"
"""The module that imports them: once somebody asks for one, since most runs of a single file never do."""


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
    program, arguments, environment, limits, context = pickle.loads(request)
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    for which, limit in limits.items():
        resource.setrlimit(which, limit)
    sys.argv = [program, *arguments]
    importlib.import_module(_PROGRAMS).run(program, arguments, context)


def _share(requests: socket.socket) -> bytes:
    """Fork a server for each process that asks for one, once the first does."""
    if not requests.recv(1, socket.MSG_PEEK):
        return b""
    importlib.import_module(_PROGRAMS).make_ready()
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
        importlib.import_module(_PROGRAMS).make_ready()
        asked = _serve(_socket)
    if asked:
        _run(asked)
