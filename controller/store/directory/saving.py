"""Writes the state file behind the store: changes that come close together are written once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from controller.store.directory.state import State, save_state

_PAUSE = 0.2  # Seconds between two writes.
_PAUSE_AFTER_FAILURE = 5.0  # Seconds. A full disk does not get better by trying at once.

log = logging.getLogger(__name__)


class Saving:
    """Writes `snapshot()` to a file after each `mark`, and once more at the end."""

    def __init__(self, path: Path, snapshot: Callable[[], State]) -> None:
        self._path = path
        self._snapshot = snapshot
        self._marked = asyncio.Event()
        self._closing = asyncio.Event()

    def mark(self) -> None:
        """Something changed."""
        self._marked.set()

    def stop(self) -> None:
        """Let `run` write once more and return."""
        self._closing.set()
        self._marked.set()

    async def run(self) -> None:
        """Write until stopped. Not to be cancelled: a write under way would race with the next."""
        while not self._closing.is_set() or self._marked.is_set():
            await self._marked.wait()
            self._marked.clear()
            pause = _PAUSE
            try:
                await asyncio.to_thread(save_state, self._path, self._snapshot())
            except OSError as error:
                log.warning("state file not written", extra={"path": self._path, "error": error.strerror})
                pause = _PAUSE_AFTER_FAILURE
                if not self._closing.is_set():
                    self._marked.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()
