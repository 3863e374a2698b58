"""The main job: every replica dies under load and comes back, and no request fails, whether the control plane lives."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.data_plane.backends import Backends
from tests.support.data_plane.product import PROMPT, Product
from tests.support.http import plain_http
from tests.support.load import Report, Sample, Traffic, closed_loop
from tests.support.timing import PATIENT
from tests.support.waiting import until

CLIENTS = 100
EACH_CLIENT_SECONDS = 0.1
"""Between two requests of a client: 1,000 requests a second, so that the waits below are longer than a change takes."""
MOST_REQUESTS = 100_000
"""The load ends by itself at last: after 100 seconds."""
TIMING = replace(PATIENT, folder=PROMPT)


@pytest_asyncio.fixture
async def product(backends: Backends, tmp_path: Path) -> AsyncIterator[Product]:
    product = Product(backends, tmp_path, timing=TIMING)
    try:
        await product.start()
        await product.join("envoy")
        yield product
    finally:
        await product.stop()


class Load:
    """Requests from 100 clients until they are told to end, and how many were answered by whom by now."""

    def __init__(self, url: str) -> None:
        self._answered: Counter[str] = Counter()
        self._stop = asyncio.Event()
        traffic = Traffic(on_sample=self._count)
        self._task = asyncio.create_task(
            closed_loop(url, CLIENTS, MOST_REQUESTS, traffic, self._stop, every=EACH_CLIENT_SECONDS)
        )

    def _count(self, sample: Sample) -> None:
        self._answered[sample.route] += 1

    async def more(self, answers: int, route: str | None = None) -> None:
        """Wait until so many more are answered, by the side `route` if it is given."""

        def answered() -> int:
            return self._answered.total() if route is None else self._answered[route]

        goal = answered() + answers

        async def reached() -> bool:
            assert not self._task.done(), "the load ended before it was told to"
            return answered() >= goal

        await until(reached, f"{answers} more answers of {route or 'either side'}", within=60)

    async def report(self) -> Report:
        """End it and tell how all of it went."""
        self._stop.set()
        return await self._task


async def back_on_local(product: Product) -> None:
    """Wait until the replicas get all requests again."""

    async def three_in_a_row() -> bool:
        async with plain_http() as client:
            return all([(await client.get(product.url)).headers["x-beamlit-route"] == "local" for _ in range(3)])

    await until(three_in_a_row, "back on local", within=60)


@pytest.mark.parametrize("control_plane", ["alive", "killed"])
async def test_all_replicas_killed_under_load_fail_no_request(product: Product, control_plane: str) -> None:
    replicas = product.backends.local
    if control_plane == "killed":
        product.kill()
    load = Load(product.url)

    await load.more(600)
    with product.backends.killed(*replicas):
        await load.more(450)
        if control_plane == "alive":
            product.list_replicas(replicas, ready=False)
        await load.more(750, route="remote")
    if control_plane == "alive":
        product.list_replicas(replicas)
    await back_on_local(product)
    await load.more(500, route="local")
    report = await load.report()

    assert report.errors == {}
    assert report.summary.remote >= 750


async def test_scaled_to_none_and_back_under_load_fails_no_request(product: Product) -> None:
    load = Load(product.url)

    await load.more(350)
    product.list_replicas(())
    await load.more(500, route="remote")
    product.list_replicas(product.backends.local)
    await back_on_local(product)
    await load.more(250, route="local")
    report = await load.report()

    assert report.errors == {}
    assert report.summary.remote >= 500
