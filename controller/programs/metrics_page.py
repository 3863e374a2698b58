"""The page of metrics: made for all who ask at once, one after the other, and mostly beside the event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import Metric
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.registry import Collector

_REST = 4.0
"""No page is made for so many times as long as the last one took of a processor: a fifth of one is spent, at most."""
_LONGEST_REST = 1.0
"""Seconds of that, at most: who asks waits for no longer, and no Prometheus asks more often."""


class ProgramRegistry(CollectorRegistry):
    """The metrics of a program, told apart by where they may be read.

    Those of the library have locks: a thread may read them. (So what `Gauge.set_function` is given must be one value,
    and nothing that is counted while others write.) All other collectors read what is the event loop's, in its steps.
    """

    def __init__(self) -> None:
        super().__init__()
        self.of_threads: list[Collector] = []
        self.of_the_loop: list[Collector] = []

    def register(self, collector: Collector) -> None:
        """See `CollectorRegistry`."""
        super().register(collector)
        (self.of_threads if isinstance(collector, MetricWrapperBase) else self.of_the_loop).append(collector)

    def unregister(self, collector: Collector) -> None:
        """See `CollectorRegistry`."""
        super().unregister(collector)
        for those in (self.of_threads, self.of_the_loop):
            if collector in those:
                those.remove(collector)


class MetricsPage:
    """Makes the page, in the text format of Prometheus (0.0.4).

    Who asks gets a page that was begun after that, and shares it with all who asked since the last one was: it is no
    older than the question, no counter is less than what its reader saw before, and what it costs is bounded however
    many ask. `refresh` is awaited before each.
    """

    def __init__(self, registry: ProgramRegistry, refresh: Callable[[], Awaitable[None]] | None = None) -> None:
        self._registry = registry
        self._refresh = refresh
        self._turn = asyncio.Lock()
        self._next: asyncio.Task[bytes] | None = None
        self._rested_at = 0.0

    async def text(self) -> bytes:
        """Return the page that is begun next."""
        if self._next is None:
            self._next = asyncio.create_task(self._make())
        # Who asked may go away meanwhile: others wait for the same page.
        return await asyncio.shield(self._next)

    async def _make(self) -> bytes:
        now = asyncio.get_running_loop().time
        async with self._turn:
            await asyncio.sleep(self._rested_at - now())
            self._next = None
            if self._refresh:
                await self._refresh()
            families: list[Metric] = []
            for collector in self._registry.of_the_loop:
                for family in collector.collect():
                    families.append(family)
                    await asyncio.sleep(0)
            text, took = await asyncio.to_thread(_encoded, families, tuple(self._registry.of_threads))
            self._rested_at = now() + min(_REST * took, _LONGEST_REST)
            return text


class _Page(Collector):
    """What was collected already, and then what is collected now."""

    def __init__(self, collected: Iterable[Metric], others: Iterable[Collector]) -> None:
        self._collected = collected
        self._others = others

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        yield from self._collected
        for one in self._others:
            yield from one.collect()


def _encoded(collected: Iterable[Metric], others: Iterable[Collector]) -> tuple[bytes, float]:
    """Encode metrics; say how many seconds of a processor that took."""
    start = time.thread_time()
    text = generate_latest(_Page(collected, others))
    return text, time.thread_time() - start
