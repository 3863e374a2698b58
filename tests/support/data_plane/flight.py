"""How many requests were in flight at once, as the servers themselves saw it."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from tests.support.data_plane.backends import Backend
from tests.support.data_plane.model import Model
from tests.support.data_plane.plane import Plane
from tests.support.load import Sample, most, steps_of
from tests.support.waiting import until

Span = tuple[float, float]
_NUMBERS = itertools.count(1)


class Flight:
    """What some servers have in flight from now on, of all models or of one; or only what they answer: who gives
    up on the others may have done so long before the server hears of it.
    """

    def __init__(self, backends: Sequence[Backend], model: Model | None = None, *, answered: bool = False) -> None:
        self._backends, self._model, self._answered = backends, model, answered
        self._begin()

    def after(self, answers: int) -> Callable[[Sample], None]:
        """Begin anew when a load has so many answers, which is no cold start any more: its `Traffic.on_sample`."""
        left = answers

        def count(_: Sample) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self._begin()

        return count

    def _begin(self) -> None:
        for one in self._backends:
            one.spans(self._model)
        self._ended: list[list[Span]] = [[] for _ in self._backends]
        self._from = time.monotonic()

    def peaks(self) -> tuple[int, list[int]]:
        """The most of all together at one moment so far, and the most of each; what has not ended does not count."""
        spans = self._spans()
        return most(steps_of(span for one in spans for span in one)), [most(steps_of(one)) for one in spans]

    def _spans(self) -> list[list[Span]]:
        """Take what each had of what has ended, cut at the beginning."""
        for one, ended in zip(self._backends, self._ended, strict=True):
            ended += [
                (max(begin, self._from), end)
                for begin, end, answered in one.spans(self._model)
                if end >= self._from and (answered or not self._answered)
            ]
        return self._ended


@asynccontextmanager
async def in_flight(plane: Plane, model: Model, count: int, side: str = "local") -> AsyncIterator[None]:
    """Have so many requests at one side, from before until after the block, and all of them answered.

    Those of one side that reach the other are held there, too.
    """
    servers = plane.backends.local if side == "local" else (plane.backends.remote,)
    before = sum(one.count(model) for one in servers)
    name = f"held-{next(_NUMBERS)}"
    headers = [("on-local", f"held={name}"), ("on-remote", f"held={name}")]
    asked = [asyncio.create_task(plane.ask(model, headers=headers)) for _ in range(count)]

    async def are_there() -> bool:
        return sum(one.count(model) for one in servers) - before == count

    try:
        await until(are_there, f"{count} requests are at the {side} side")
        yield
        assert not any(one.done() for one in asked)
    finally:
        for one in plane.backends.all:
            one.release(name)
    assert {reply.status for reply in await asyncio.gather(*asked)} == {200}
