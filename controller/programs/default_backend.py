"""The secret of the default remote backend, read from the file `clientSecretFile` of the configuration, and followed.

So it is in no ConfigMap, no environment and no command line: the kubelet mounts it from a Secret, and renews the file.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from pydantic import SecretStr

from controller.api.resources.backend import RemoteBackend
from controller.api.resources.configuration import DefaultRemoteBackend
from controller.programs.lifetime import CannotStartError

logger = logging.getLogger(__name__)

_KEY = "defaultRemoteBackend.authConfig.oauthConfig.clientSecretFile"
_LARGEST = 8192
"""Of a client's secret, in bytes, as in its other field."""

ReplaceBackend = Callable[[RemoteBackend], Awaitable[None]]
"""Called with the backend and its new secret."""


class SecretFileError(Exception):
    """The file holds no secret that can be used; the message says which and why, and nothing of its content."""


def with_secret(backend: DefaultRemoteBackend | None) -> RemoteBackend | None:
    """Return the default backend with its secret read from its file, if it is in one. Raises CannotStartError."""
    if backend is None or backend.client_secret_file is None:
        return backend
    try:
        return backend.with_client_secret(_read(Path(backend.client_secret_file)))
    except SecretFileError as error:
        raise CannotStartError(f"{_KEY}: {error}") from error


async def follow_secret(
    backend: DefaultRemoteBackend | None, replace: ReplaceBackend, seconds: float, known: RemoteBackend | None
) -> None:
    """Hand over the backend whenever its file says something new, until cancelled; `known` is what is in use.

    A file that cannot be read for a while, or is empty, leaves in use what is.
    """
    if backend is None or backend.client_secret_file is None:
        await asyncio.Event().wait()
        return
    said = ""
    while True:
        await asyncio.sleep(seconds)
        try:
            found = backend.with_client_secret(await asyncio.to_thread(_read, Path(backend.client_secret_file)))
        except SecretFileError as error:
            if str(error) != said:
                logger.error("secret of the default backend not renewed", extra={"because": str(error)})
            said = str(error)
            continue
        said = ""
        if found != known:
            known = found
            await replace(found)
            logger.info("secret of the default backend renewed", extra={"file": backend.client_secret_file})


def _read(path: Path) -> SecretStr:
    try:
        with path.open("rb") as file:
            content = file.read(_LARGEST + 1)
        text = content.decode().rstrip("\r\n")
    except OSError as error:
        raise SecretFileError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError:
        raise SecretFileError(f"{path}: is not text") from None
    if len(content) > _LARGEST:
        raise SecretFileError(f"{path}: has more than {_LARGEST} bytes")
    if not text.strip():
        raise SecretFileError(f"{path}: is empty")
    return SecretStr(text)
