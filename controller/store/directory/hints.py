"""Says when to look at the folder: at once when the system reports a change, else every so often."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from pathlib import Path

import watchfiles

from controller.api.timing import FolderTiming

log = logging.getLogger(__name__)


class Hints:
    """Reports of changes, carrying no meaning: whoever is woken looks at the whole folder."""

    def __init__(self, directory: Path, timing: FolderTiming) -> None:
        self._directory = directory
        self._news = asyncio.Event()
        self._stop = asyncio.Event()
        self._relist, self._unaided = timing.relist, timing.relist_unaided

    async def wait(self, longest: float | None) -> None:
        """Return at the next report, or after `longest` seconds (None: when it is time to look again)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._relist if longest is None else min(longest, self._relist)):
                await self._news.wait()
        self._news.clear()

    def stop(self) -> None:
        """Let `run` return."""
        self._stop.set()

    async def run(self) -> None:
        """Listen until stopped; what happens after its first step is not missed."""
        try:
            async for _ in watchfiles.awatch(
                self._directory,
                watch_filter=None,
                debounce=100,
                step=20,
                stop_event=self._stop,
                ignore_permission_denied=True,
            ):
                self._news.set()
        except (OSError, RuntimeError) as error:  # RuntimeError is the root of what watchfiles raises.
            log.warning("no reports of changed files, looking more often", extra={"error": error})
            self._relist = self._unaided
            self._news.set()
