"""What the load of several tests has in common."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tests.support.load import Answer, Report, Traffic, closed_loop
from tests.support.waiting import until

ENOUGH = 1_000
"""Requests of a load that goes on meanwhile."""


async def meanwhile(url: str, step: Callable[[], Awaitable[object]], requests: int = ENOUGH) -> Report:
    """Take a step under load from eight clients: half of so many requests come before it, at least half after it."""
    answered, stop = 0, asyncio.Event()

    def count(_: object) -> None:
        nonlocal answered
        answered += 1

    async def more(number: int) -> None:
        goal = answered + number

        async def reached() -> bool:
            return answered >= goal or loading.done()

        await until(reached, f"{number} more answers", within=60)

    traffic = Traffic(on_sample=count)
    loading = asyncio.create_task(closed_loop(url, clients=8, requests=1_000_000, traffic=traffic, stop=stop))
    try:
        await more(requests // 2)
        await step()
        await more(requests // 2)
    finally:
        stop.set()
        report = await loading
    return report


def named_wrongly(answer: Answer) -> str:
    """Tell whether `x-beamlit-route` is another side than the one whose server answered."""
    side = answer.headers["x-served-by"].partition("-")[0]
    return "" if answer.route == side else f"{answer.route} instead of {side}"
