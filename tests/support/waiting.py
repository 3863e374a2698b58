"""Waiting for what becomes true on its own.

The times are what something may take that is broken: nothing that works comes near them. They are seconds in which who
waits had his turns. A machine that is busy with other work gives few of them, and then more seconds pass: so what is
slow because of others is not taken for broken.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import TypeVar

PATIENCE = 30.0
"""Seconds."""
TURNS = 4
"""How often, at least, one looked in each of these seconds; with the processors to himself, far more often."""
_SOONEST, _LATEST = 0.02, 0.1
"""Seconds until one looks again."""

Seen = TypeVar("Seen")


class Deadline:
    """The end of `within` seconds from `now` on, in each of which there were some turns."""

    def __init__(self, now: float, within: float) -> None:
        self._began = now
        self._ends = now + within
        self._turns = within * TURNS

    def has_passed(self, now: float) -> bool:
        """Say so in a turn, and count it."""
        self._turns -= 1
        return now >= self._ends and self._turns < 0

    def pause(self, now: float) -> float:
        """Say in how many seconds to look again: a tenth of what was waited. Whoever looks takes turns from others."""
        return min(max((now - self._began) / 10, _SOONEST), _LATEST)


async def until(condition: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Return as soon as the condition holds, which may be awaitable; fail the test after so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = Deadline(loop.time(), within)
    while not (await seen if isawaitable(seen := condition()) else seen):
        assert not deadline.has_passed(loop.time()), f"not within {within} s: {what}"
        await asyncio.sleep(deadline.pause(loop.time()))


def until_now(condition: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Do what `until` does, where there is no event loop: block."""
    deadline = Deadline(time.monotonic(), within)
    while not condition():
        assert not deadline.has_passed(time.monotonic()), f"not within {within} s: {what}"
        time.sleep(deadline.pause(time.monotonic()))


async def eventually(
    look: Callable[[], Awaitable[Seen]], good: Callable[[Seen], object], within: float = PATIENCE
) -> Seen:
    """Look until it is good and return what was seen; fail with what was seen last after `within` seconds."""
    loop = asyncio.get_running_loop()
    deadline = Deadline(loop.time(), within)
    while not good(seen := await look()):
        assert not deadline.has_passed(loop.time()), f"after {within} s still: {seen!r}"
        await asyncio.sleep(deadline.pause(loop.time()))
    return seen


async def in_time(coming: Awaitable[Seen], what: str, within: float = PATIENCE) -> Seen:
    """Return what comes, as soon as it does; cancel it and fail the test after so many seconds."""
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(coming)
    deadline = Deadline(loop.time(), within)
    while not (await asyncio.wait({task}, timeout=1 / (2 * TURNS)))[0]:
        if deadline.has_passed(loop.time()):
            task.cancel()
            raise AssertionError(f"not within {within} s: {what}")
    return task.result()


@asynccontextmanager
async def time_limit(within: float = PATIENCE) -> AsyncIterator[None]:
    """Do as `asyncio.timeout` does: cancel the block, and raise TimeoutError, after so many seconds."""
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(None) as limit:

        async def watch() -> None:
            deadline = Deadline(loop.time(), within)
            while True:
                await asyncio.sleep(1 / (2 * TURNS))
                if deadline.has_passed(loop.time()):
                    return limit.reschedule(loop.time())

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()


async def at_rest(value: Callable[[], int], seconds: float = 1.0) -> int:
    """Wait until a number that only grows has not grown for so many seconds; return it.

    Seconds in which this process had its turns, so that what grows had a chance to.
    """
    loop = asyncio.get_running_loop()
    last, since, looks = value(), loop.time(), 0

    async def rests() -> bool:
        nonlocal last, since, looks
        if value() != last:
            last, since, looks = value(), loop.time(), 0
        looks += 1
        return loop.time() - since > seconds and looks > 2 * TURNS * seconds

    await until(rests, "it comes to rest", within=60)
    return last
