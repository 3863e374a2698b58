"""Waiting for what becomes true on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(condition: Callable[[], Awaitable[object]], what: str, within: float = 10.0) -> None:
    """Return as soon as the condition holds; fail the test if it does not within so many seconds."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while not await condition():
        assert loop.time() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.02)


async def at_rest(value: Callable[[], int], seconds: float = 1.0) -> int:
    """Wait until a number that only grows has not grown for so many seconds; return it."""
    loop = asyncio.get_running_loop()
    last, since = value(), loop.time()

    async def rests() -> bool:
        nonlocal last, since
        if value() != last:
            last, since = value(), loop.time()
        return loop.time() - since > seconds

    await until(rests, "it comes to rest", within=20)
    return last
