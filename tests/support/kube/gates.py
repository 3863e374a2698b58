"""Points on the way of a request at which a test can make it wait."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tests.support.kube.request import Request, Which


@dataclass(frozen=True, slots=True, eq=False)
class Gate:
    """Holds requests until it is opened."""

    which: Which
    waiting: list[Request] = field(default_factory=list)
    """What it has held so far."""
    opened: asyncio.Event = field(default_factory=asyncio.Event)


class Gates:
    """The gates at one point."""

    def __init__(self) -> None:
        self._closed: list[Gate] = []

    @contextmanager
    def closed(self, which: Which) -> Iterator[Gate]:
        """Hold what is meant until the block ends."""
        gate = Gate(which)
        self._closed.append(gate)
        try:
            yield gate
        finally:
            self._closed.remove(gate)
            gate.opened.set()

    async def passed(self, request: Request) -> None:
        """Wait until nothing holds the request."""
        for gate in tuple(self._closed):
            if gate.which(request):
                gate.waiting.append(request)
                await gate.opened.wait()
