"""Clients for ever, in waves: as many as the replicas have places for, then more, then fewer again.

Each client asks for one completion after the other. A line every few seconds says what became of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import random
import time
from collections import Counter
from dataclasses import dataclass

import aiohttp
import click

from demo.completion import length_of, request_body
from tests.support.load import TracedRequest

_TOLD_EVERY = 5.0
_ADJUSTED_EVERY = 0.5
_TOKENS = (10, 60)
"""The shortest and the longest answer that is asked for."""


@dataclass(frozen=True, slots=True)
class Wave:
    """How many clients there are: `least` at first, `most` after half a `period` (in seconds), and so on."""

    least: int
    most: int
    period: float

    def clients(self, seconds: float) -> int:
        """Return how many there are so many seconds after the first."""
        height = (1 - math.cos(2 * math.pi * seconds / self.period)) / 2
        return round(self.least + (self.most - self.least) * height)


class Tally:
    """What became of requests since it was told last, by the side that answered."""

    def __init__(self) -> None:
        self._count: Counter[str] = Counter()

    def add(self, became: str) -> None:
        """Count one: `local`, `remote`, or what went wrong."""
        self._count[became] += 1

    def tell(self, clients: int) -> str:
        """Say it in one line, and begin anew."""
        count, self._count = self._count, Counter()
        local, remote = count.pop("local", 0), count.pop("remote", 0)
        failed = ", ".join(f"{number} x {what}" for what, number in sorted(count.items())) or "0"
        return f"{clients:3} clients  {local:4} local  {remote:4} remote  failed: {failed}"


async def ask(session: aiohttp.ClientSession, url: str, tokens: int) -> str:
    """Ask for one completion; return the side that gave it, or what went wrong."""
    try:
        async with session.post(url, data=request_body(TracedRequest(0.0, 100, tokens))) as answer:
            body = await answer.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        return type(error).__name__
    if answer.status != 200:
        return f"status {answer.status}"
    if not body.endswith(b"data: [DONE]\n\n"):
        return "no whole answer"
    return answer.headers.get("x-beamlit-route", "no x-beamlit-route")


async def _client(session: aiohttp.ClientSession, url: str, tally: Tally) -> None:
    while True:
        became = await ask(session, url, length_of(random.randint(*_TOKENS)))
        tally.add(became)
        if became not in ("local", "remote"):
            await asyncio.sleep(1.0)  # whoever gets an error waits before the next try


async def _run(url: str, wave: Wave) -> None:
    clients: list[asyncio.Task[None]] = []
    tally, begin, told = Tally(), time.monotonic(), 0.0
    timeout = aiohttp.ClientTimeout(total=60.0)
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        while True:
            now = time.monotonic() - begin
            wanted = wave.clients(now)
            while len(clients) < wanted:
                clients.append(asyncio.create_task(_client(session, url, tally)))
            while len(clients) > wanted:
                clients.pop().cancel()
            if now - told >= _TOLD_EVERY:
                told = now
                click.echo(tally.tell(wanted))
            await asyncio.sleep(_ADJUSTED_EVERY)


@click.command()
@click.option("--url", required=True, help="Where completions are.")
@click.option("--least", type=click.IntRange(0), default=4, show_default=True, help="The fewest clients.")
@click.option("--most", type=click.IntRange(1), default=24, show_default=True, help="The most clients.")
@click.option("--period", type=click.FloatRange(1), default=120.0, show_default=True, help="Seconds of one wave.")
def main(url: str, least: int, most: int, period: float) -> None:
    """Send requests until it is stopped."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(url, Wave(least, most, period)))


if __name__ == "__main__":
    main()
