"""Whose turn it is to be checked: few checks run at once, and namespaces take turns, however many each has waiting."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter, deque
from collections.abc import AsyncIterator, Iterable


class FairTurns:
    """Lets `at_once` pass together, and of one namespace `of_one` at most.

    A turn that becomes free goes to the namespace that has the fewest, and among such ones to the one that has waited
    the longest since it got one; within a namespace, to whoever came first. So one in which nothing answers, or with
    thousands that wait, makes another one wait for no more than one turn of each namespace before it.
    """

    def __init__(self, at_once: int, of_one: int) -> None:
        self._free = at_once
        self._of_one = of_one
        self._taken: Counter[str] = Counter()
        # Who waits for the longest, since it got a turn, is in front. One that waits for several is in each queue.
        self._waiting: dict[str, deque[asyncio.Future[str]]] = {}

    @contextlib.asynccontextmanager
    async def turn(self, namespaces: Iterable[str]) -> AsyncIterator[None]:
        """Wait for a turn of any of these namespaces, and have it while the block runs."""
        mine = await self._granted(namespaces)
        try:
            yield
        finally:
            self._end(mine)

    async def _granted(self, namespaces: Iterable[str]) -> str:
        granted: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        for namespace in namespaces:
            self._waiting.setdefault(namespace, deque()).append(granted)
        self._grant()
        try:
            return await granted
        except asyncio.CancelledError:
            if granted.done() and not granted.cancelled():
                self._end(granted.result())
            granted.cancel()
            raise

    def _end(self, namespace: str) -> None:
        self._free += 1
        self._taken[namespace] -= 1
        if not self._taken[namespace]:
            del self._taken[namespace]
        self._grant()

    def _grant(self) -> None:
        while self._free and (namespace := self._next()) is not None:
            queue = self._waiting.pop(namespace)
            queue.popleft().set_result(namespace)
            self._waiting[namespace] = queue  # behind all others
            self._free -= 1
            self._taken[namespace] += 1

    def _next(self) -> str | None:
        for namespace, queue in list(self._waiting.items()):
            while queue and queue[0].done():
                queue.popleft()
            if not queue:
                del self._waiting[namespace]
        may = (one for one in self._waiting if self._taken[one] < self._of_one)
        return min(may, key=self._taken.__getitem__, default=None)
