"""Waiting for what becomes true on its own.

The times are what something may take that is broken, on a machine that is busy: nothing that works comes near them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import TypeVar

PATIENCE = 30.0
"""Seconds."""

Seen = TypeVar("Seen")


async def until(condition: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Return as soon as the condition holds, which may be awaitable; fail the test after so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not (await seen if isawaitable(seen := condition()) else seen):
        assert loop.time() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.02)


def until_now(condition: Callable[[], object], what: str, within: float = PATIENCE) -> None:
    """Do what `until` does, where there is no event loop: block."""
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.05)


async def eventually(
    look: Callable[[], Awaitable[Seen]], good: Callable[[Seen], object], within: float = PATIENCE
) -> Seen:
    """Look until it is good and return what was seen; fail with what was seen last after `within` seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not good(seen := await look()):
        assert loop.time() < deadline, f"after {within} s still: {seen!r}"
        await asyncio.sleep(0.05)
    return seen


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
        return loop.time() - since > seconds and looks > 20 * seconds

    await until(rests, "it comes to rest", within=60)
    return last
