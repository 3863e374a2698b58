"""The page of metrics: how often it is made, for whom, and where."""

import asyncio
import threading

import pytest
from prometheus_client import Counter, Gauge
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from controller.programs.metrics_page import MetricsPage, ProgramRegistry
from tests.support.waiting import PATIENCE, time_limit


class Collected(Collector):
    """Counts how often it is collected, and says so."""

    def __init__(self, registry, then=lambda: None):
        self.times, self._then = 0, then
        registry.register(self)

    def collect(self):
        self.times += 1
        yield GaugeMetricFamily("first", "x", value=self.times)
        # What others do while a page is made is done before this.
        self._then()
        yield GaugeMetricFamily("second", "x", value=self.times)


async def test_however_many_ask_one_page_is_made():
    registry = ProgramRegistry()
    collected, page = Collected(registry), MetricsPage(registry)
    pages = await asyncio.gather(*(page.text() for _ in range(50)))
    assert collected.times == 1
    assert all(one is pages[0] for one in pages)


async def test_who_asks_while_a_page_is_made_gets_the_next_one_which_knows_what_happened_before():
    registry = ProgramRegistry()
    counter, asked = Counter("done", "x", registry=registry), []

    def more_ask():
        if not asked:
            counter.inc()
            asked.extend(asyncio.create_task(page.text()) for _ in range(50))

    collected, page = Collected(registry, more_ask), MetricsPage(registry)
    first = await page.text()
    then = await asyncio.gather(*asked)
    assert collected.times == 2
    assert b"\nfirst 1.0\n" in first
    assert {b"\nfirst 2.0\n" in one and b"\ndone_total 1.0\n" in one for one in then} == {True}


async def test_the_event_loop_goes_on_while_the_values_of_the_library_are_read_and_written_down():
    registry, looped = ProgramRegistry(), threading.Event()
    gauge = Gauge("waits", "x", registry=registry)
    gauge.set_function(lambda: float(looped.wait(PATIENCE)))
    async with time_limit(PATIENCE):
        asked = asyncio.create_task(MetricsPage(registry).text())
        asyncio.get_running_loop().call_later(0, looped.set)
        assert b"\nwaits 1.0\n" in await asked


async def test_what_is_the_event_loops_is_read_there():
    registry, threads = ProgramRegistry(), []
    Collected(registry, lambda: threads.append(threading.current_thread()))
    await MetricsPage(registry).text()
    assert threads == [threading.current_thread()]


async def test_after_a_page_that_cannot_be_made_there_is_another_one():
    registry, faults = ProgramRegistry(), [KeyError("x")]

    def fails_once():
        if faults:
            raise faults.pop()

    Collected(registry, fails_once)
    page = MetricsPage(registry)
    with pytest.raises(KeyError):
        await page.text()
    assert b"\nsecond 2.0\n" in await page.text()


async def test_who_goes_away_does_not_keep_the_page_from_others():
    page = MetricsPage(ProgramRegistry())
    first, second = (asyncio.create_task(page.text()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert await second == b""


def test_what_is_taken_out_of_a_registry_is_read_no_more():
    registry = ProgramRegistry()
    for one in (Collected(registry), Gauge("x", "x", registry=registry)):
        registry.unregister(one)
    assert not registry.of_the_loop
    assert not registry.of_threads
