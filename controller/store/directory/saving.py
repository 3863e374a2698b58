"""Writes the state file behind the store: changes that come close together are written once."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from pathlib import Path

from controller.api.timing import FolderTiming
from controller.store.directory.state import State, save_state

log = logging.getLogger(__name__)


class Saving:
    """Writes `snapshot()` to a file after each `mark`, and once more at the end."""

    def __init__(self, path: Path, snapshot: Callable[[], State], timing: FolderTiming) -> None:
        self._path = path
        self._snapshot = snapshot
        self._timing = timing
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
            pause = self._timing.save_pause
            try:
                await asyncio.to_thread(save_state, self._path, self._snapshot())
            except OSError as error:
                log.warning("state file not written", extra={"path": self._path, "error": error.strerror})
                pause = self._timing.save_pause_after_failure
                if not self._closing.is_set():
                    self._marked.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()
