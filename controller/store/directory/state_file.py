"""The file of the state: read at the start, and written whole after each change.

A reader of the file finds the old state or the new one, never a part.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path

from controller.api.timing import FolderTiming
from controller.store.directory.state import StoreState, parse_state, state_document

log = logging.getLogger(__name__)


def load_state(path: Path) -> StoreState:
    """Read the state. Without a file it is empty; a file that cannot be understood is set aside as `.corrupt`."""
    try:
        return parse_state(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return StoreState()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        aside = path.with_name(path.name + ".corrupt")
        path.replace(aside)
        log.warning("state file set aside, starting without it", extra={"path": aside, "error": type(error).__name__})
        return StoreState()


def save_state(path: Path, state: StoreState) -> None:
    """Write the state so that a reader finds the old one or the new one whole. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # Left by a crash, maybe with another mode.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(state_document(state), file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


class StateWriter:
    """Writes `snapshot()` to a file after each `mark_dirty`, and once more at the end."""

    def __init__(self, path: Path, snapshot: Callable[[], StoreState], timing: FolderTiming) -> None:
        self._path = path
        self._snapshot = snapshot
        self._timing = timing
        self._dirty = asyncio.Event()
        self._closing = asyncio.Event()

    def mark_dirty(self) -> None:
        """Something changed."""
        self._dirty.set()

    def stop(self) -> None:
        """Let `run` write once more and return."""
        self._closing.set()
        self._dirty.set()

    async def run(self) -> None:
        """Write until stopped. Not to be cancelled: a write under way would race with the next."""
        while not self._closing.is_set() or self._dirty.is_set():
            await self._dirty.wait()
            self._dirty.clear()
            pause = self._timing.save_pause
            try:
                await asyncio.to_thread(save_state, self._path, self._snapshot())
            except OSError as error:
                log.warning("state file not written", extra={"path": self._path, "error": error.strerror})
                pause = self._timing.save_pause_after_failure
                if not self._closing.is_set():
                    self._dirty.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()
