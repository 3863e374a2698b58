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
