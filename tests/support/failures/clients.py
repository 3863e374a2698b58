"""The clients of one model while something fails: requests with numbers of their own, until there are enough."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from dataclasses import dataclass

from tests.support.data_plane.ledger import REQUESTS
from tests.support.data_plane.traffic import named_wrongly
from tests.support.load import Report, Sample, Traffic, closed_loop

MODELS = 8
"""How many models at once have requests that the servers can tell apart."""
_EACH = REQUESTS // MODELS


@dataclass(frozen=True, slots=True)
class Size:
    """How much each model is asked: so many requests at least, within so many seconds."""

    requests: int
    seconds: float = 60.0
    clients: int = 32
    every: float = 0.0
    """Seconds between the requests of one client at least."""

    @property
    def crowded(self) -> Size:
        """More of them, from more clients that do not pause."""
        return self if not self.every else Size(2 * self.requests, self.seconds, 4 * self.clients)


class Clients:
    """The requests of the model `place`, 0 to `MODELS`; each has its number in a header."""

    def __init__(self, url: str, place: int, size: Size, patience: float, good: frozenset[int]) -> None:
        assert place < MODELS
        self.count = size.clients
        self.answered = 0
        self._first = place * _EACH
        self._sent = 0
        self._stop = asyncio.Event()
        self._begun = math.inf
        traffic = Traffic(headers=self._number, timeout=patience, good=good, fault=named_wrongly, on_sample=self._heard)
        requests = closed_loop(
            url, clients=size.clients, requests=_EACH, traffic=traffic, stop=self._stop, every=size.every
        )
        self._task = asyncio.create_task(requests)

    @property
    def begun(self) -> float:
        """When its samples begin to count, in loop time."""
        return self._begun

    @property
    def numbers(self) -> range:
        """The numbers of all requests so far."""
        return range(self._first, self._first + self._sent)

    @property
    def is_over(self) -> bool:
        """Whether no request comes any more; there are so many numbers."""
        return self._task.done()

    def latest(self, count: int) -> range:
        """Return the numbers of requests sent lately, of whom all but a few are answered."""
        end = max(0, self._sent - 2 * self.count)
        return range(self._first + max(0, end - count), self._first + end)

    async def end(self) -> Report:
        """Send no more, and wait for what is on its way."""
        self._stop.set()
        return await self._task

    def _number(self, number: int) -> Mapping[str, str]:
        self._sent = number + 1
        return {"number": str(self._first + number)}

    def _heard(self, sample: Sample) -> None:
        self.answered += 1
        # A sample is told as it ends, now and then a pause later: never earlier.
        self._begun = min(self._begun, asyncio.get_running_loop().time() - sample.end)
