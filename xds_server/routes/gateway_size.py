"""The number of Envoys that share what the replicas take, followed no faster than all routes with a limit can be."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

logger = logging.getLogger(__name__)


class GatewaySize:
    """The number of Envoys that limits are shared by: `envoys`.

    It follows the ready ones at once, and again `seconds` later at the earliest, with the last of what came in between.
    The first number of ready ones is how many there are, and no change. So what a limit lets pass is wrong for that
    long at most, while any number of changes costs one route each second. `on_change` is awaited when it changes by
    itself.

    Where nothing tells how many are ready, it stays as it was set. Then it says so, once, if it is too few for those
    that are connected: each of them lets pass what is meant for fewer.

    `checks_shared_by` never follows, and it says so, once, when there are more: together they check a replica more
    often than the kubelet does.
    """

    def __init__(
        self, envoys: int, checks_shared_by: int, on_change: Callable[[], Awaitable[None]], seconds: float
    ) -> None:
        self.envoys = envoys
        self._checks_shared_by = checks_shared_by
        self._on_change = on_change
        self._seconds = seconds
        self._ready: int | None = None
        self._connected = 0
        self._is_used = self._has_warned = self._has_warned_of_checks = False
        self._task: asyncio.Task[None] | None = None

    def set_ready(self, ready: int) -> bool:
        """Set how many are ready; tell whether `envoys` has changed."""
        is_first, self._ready = self._ready is None, ready
        self._warn_of_checks()
        if self._is_pausing or self.envoys == self._ready:
            return False
        self.envoys = self._ready
        if not is_first:
            self._task = asyncio.create_task(self._follow_later())
        return True

    def set_connected(self, connected: int) -> None:
        """Set how many Envoys are connected."""
        self._connected = connected
        self._warn_of_too_few()
        self._warn_of_checks()

    def set_used(self) -> None:
        """Record that a limit is shared by so many."""
        self._is_used = True
        self._warn_of_too_few()

    def close(self) -> None:
        """Follow no more."""
        if self._task:
            self._task.cancel()

    def _warn_of_too_few(self) -> None:
        if self._is_used and self._ready is None and self._connected > self.envoys and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "more Envoys are connected than share what replicas take",
                extra={
                    "connected": self._connected,
                    "share": self.envoys,
                    "remedy": "say how many: --gateway-service or proxyService, beamlit run --envoys",
                },
            )

    def _warn_of_checks(self) -> None:
        envoys = max(self._connected, self._ready or 0)
        if envoys > self._checks_shared_by and not self._has_warned_of_checks:
            self._has_warned_of_checks = True
            logger.warning(
                "more Envoys check replicas than share the checks",
                extra={
                    "envoys": envoys,
                    "share": self._checks_shared_by,
                    "remedy": "say how many: --checks-shared-by, beamlit run --envoys",
                },
            )

    @property
    def _is_pausing(self) -> bool:
        return self._task is not None and not self._task.done()

    async def _follow_later(self) -> None:
        await asyncio.sleep(self._seconds)
        while self._ready not in (None, self.envoys):
            self.envoys = self._ready
            await self._on_change()
            await asyncio.sleep(self._seconds)
