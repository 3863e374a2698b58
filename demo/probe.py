"""Waiting until a process answers."""

from __future__ import annotations

import asyncio

from benchmarks.load import Traffic, closed_loop
from demo.process import DemoError, Process

_PROBE = Traffic(timeout=1.0)


async def wait_for_answer(url: str, process: Process, within: float = 20.0) -> None:
    """Wait until `url` answers with 200. Raises DemoError when its process ends or `within` seconds have passed."""
    try:
        async with asyncio.timeout(within):
            while (await closed_loop(url, 1, 1, _PROBE)).summary.failed:
                process.check()
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise DemoError(f"{process.name}: no answer at {url} in {within:.0f} s\n{process.last_words()}") from None
