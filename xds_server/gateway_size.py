"""How many Envoys share what the replicas take, followed no faster than all routes with a limit can be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

SECONDS = 1.0
"""Between two changes. A gateway that rolls is two changes for each of its pods, and each is a route for each model."""


class GatewaySize:
    """The number of Envoys that limits are shared by: `envoys`.

    It follows the ready ones at once, and again `seconds` later at the earliest, with the last of what came in between.
    The first that it hears of is how many there are, and no change. So what a limit lets pass is wrong for that long at
    most, while any number of changes costs one route each second. `later` is awaited when it changes by itself.
    """

    def __init__(self, envoys: int, later: Callable[[], Awaitable[None]]) -> None:
        self.seconds = SECONDS
        self.envoys = envoys
        self._ready: int | None = None
        self._later = later
        self._task: asyncio.Task[None] | None = None

    def follow(self, ready: int) -> bool:
        """Take in how many are ready, none counting as one; tell whether `envoys` has changed."""
        is_first, self._ready = self._ready is None, max(1, ready)
        if self._is_resting or self.envoys == self._ready:
            return False
        self.envoys = self._ready
        if not is_first:
            self._task = asyncio.create_task(self._rest())
        return True

    def close(self) -> None:
        """Follow no more."""
        if self._task:
            self._task.cancel()

    @property
    def _is_resting(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _rest(self) -> None:
        await asyncio.sleep(self.seconds)
        while self._ready not in (None, self.envoys):
            self.envoys = self._ready
            await self._later()
            await asyncio.sleep(self.seconds)
