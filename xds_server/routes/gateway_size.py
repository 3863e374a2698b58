"""How many Envoys share what the replicas take, followed no faster than all routes with a limit can be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)


class GatewaySize:
    """The number of Envoys that limits are shared by: `envoys`.

    It follows the ready ones at once, and again `seconds` later at the earliest, with the last of what came in between.
    The first that it hears of is how many there are, and no change. So what a limit lets pass is wrong for that long at
    most, while any number of changes costs one route each second. `later` is awaited when it changes by itself.

    Where nothing tells how many are ready, it stays as it was set. Then it says so, once, if it is too few for those
    that are there: each of them lets pass what is meant for fewer.
    """

    def __init__(self, envoys: int, later: Callable[[], Awaitable[None]], seconds: float) -> None:
        self._seconds = seconds
        self.envoys = envoys
        self._ready: int | None = None
        self._connected = 0
        self._is_used = self._was_told = False
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

    def shared_by(self) -> int:
        """Return `envoys`, for a limit that is to be shared."""
        self._is_used = True
        self._compare()
        return self.envoys

    def connected(self, envoys: int) -> None:
        """Take in how many Envoys are connected."""
        self._connected = envoys
        self._compare()

    def _compare(self) -> None:
        if self._is_used and self._ready is None and self._connected > self.envoys and not self._was_told:
            self._was_told = True
            logger.warning(
                "more Envoys are connected than share what replicas take",
                extra={
                    "connected": self._connected,
                    "share": self.envoys,
                    "remedy": "say how many: --gateway-service or proxyService, beamlit run --envoys",
                },
            )

    def close(self) -> None:
        """Follow no more."""
        if self._task:
            self._task.cancel()

    @property
    def _is_resting(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _rest(self) -> None:
        await asyncio.sleep(self._seconds)
        while self._ready not in (None, self.envoys):
            self.envoys = self._ready
            await self._later()
            await asyncio.sleep(self._seconds)
