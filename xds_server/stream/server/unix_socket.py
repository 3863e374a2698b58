"""A socket file to listen at: never that of a server that runs, and for its user and group alone."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MODE = 0o660


class SocketTakenError(Exception):
    """The file is no socket or cannot be made, or somebody listens there, or that cannot be told; the message says."""


@contextmanager
def socket_file(path: Path) -> Iterator[None]:
    """Bind inside: gRPC removes the file of a server that is gone, and whatever else of that name is a socket.

    So nobody may listen there. What is bound inside is never open to others, not for a moment. Raises SocketTakenError.
    """
    _check_unused(path)
    # Of the whole process; what binds does not wait, so no task makes a file meanwhile.
    before = os.umask(0o777 & ~MODE)
    try:
        yield
    finally:
        os.umask(before)
    path.chmod(MODE)


def _check_unused(path: Path) -> None:
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise SocketTakenError(f"{path} is there, and is no socket")
        with socket.socket(socket.AF_UNIX) as asking:
            # A server that is busy shall not have this one wait.
            asking.setblocking(False)
            asking.connect(str(path))
    except FileNotFoundError:
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise SocketTakenError(f"{path.parent} is no folder in which this program may make it") from None
        return
    except OSError as error:
        if error.errno == errno.ECONNREFUSED:
            return
        if error.errno != errno.EAGAIN:
            raise SocketTakenError(f"{path}: {error.strerror or error}") from error
    raise SocketTakenError(f"another program listens at {path}")
