"""A store that a test can restart, and whose problems it can await."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from controller.api.timing import REAL
from controller.store.directory import DirectoryStore
from controller.store.manifest.manifest import Problem
from tests.support.manifests import KINDS
from tests.support.waiting import PATIENCE, time_limit


class Running:
    """A store over `folder`, whose problems can be awaited. `timing` may be changed before a restart."""

    def __init__(self, folder: Path, state_file: Path) -> None:
        self.folder = folder
        self.state_file = state_file
        # All files come to rest here: the first batch has them, also where nobody had a turn for some seconds.
        self.timing = replace(REAL.folder, first_list=PATIENCE)
        self._told = asyncio.Event()
        self.store = self._new()

    def _new(self) -> DirectoryStore:
        return DirectoryStore(self.folder, self.state_file, KINDS, lambda problems: self._told.set(), self.timing)

    async def until_problems(self, condition: Callable[[tuple[Problem, ...]], object]) -> tuple[Problem, ...]:
        async with time_limit(PATIENCE):
            while not condition(self.store.problems):
                await self._told.wait()
                self._told.clear()
        return self.store.problems

    async def restart(self) -> None:
        await self.store.close()
        self.store = self._new()
        await self.store.start()
