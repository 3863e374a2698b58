"""The file that names the clients of an xDS server that are refused, followed."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

from controller.programs.lifetime import CannotStartError
from xds_server.stream.callers import Callers
from xds_server.stream.refused import parse_refused

logger = logging.getLogger(__name__)

_OPTION = "--refused-clients"
_LARGEST = 1 << 20
"""In bytes: some ten thousand clients."""


def refuse_from(path: Path, callers: Callers) -> None:
    """Read the file for the first time, and refuse whom it names. Raises CannotStartError."""
    try:
        callers.refuse(_read(path))
    except (OSError, ValueError) as error:
        raise CannotStartError(f"{_OPTION} {path}: {error}") from error


async def follow_refused(path: Path | None, callers: Callers | None, seconds: float) -> None:
    """Refuse whom the file names whenever it says something new, until cancelled; without one, do nothing.

    A file that cannot be read, or that has a line that is wrong, changes nothing: nobody is let in by a mistake. Nor
    by a file that is half written: who is not in it any more is let in by a second look that sees the same.
    """
    if path is None or callers is None:
        await asyncio.Event().wait()
        return
    said, seen = "", callers.refused
    while True:
        await asyncio.sleep(seconds)
        try:
            refused = await asyncio.to_thread(_read, path)
        except (OSError, ValueError) as error:
            if str(error) != said:
                logger.error("list of refused clients not renewed", extra={"file": path, "because": str(error)})
            said = str(error)
            continue
        said = ""
        refused, seen = (refused if refused == seen else refused | callers.refused), refused
        if refused != callers.refused:
            ended = callers.refuse(refused)
            logger.warning("list of refused clients", extra={"entries": len(refused), "calls_ended": ended})


def _read(path: Path) -> frozenset[str]:
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"has more than {_LARGEST} bytes")
    return parse_refused(content.decode())
