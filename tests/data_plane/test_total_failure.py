"""The main job: every replica dies under load and comes back, and no request fails, whether the control plane lives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from controller.api.timing import Timing
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.product import PROMPT, Product
from tests.support.http import plain_http
from tests.support.load import Report, Traffic, closed_loop
from tests.support.waiting import until

CLIENTS = 200
TIMING = Timing(folder=PROMPT)


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
    """Requests from 200 clients, and how many are answered by now."""

    def __init__(self, url: str, requests: int) -> None:
        self.answered = 0
        traffic = Traffic(on_sample=self._count)
        self._task = asyncio.create_task(closed_loop(url, clients=CLIENTS, requests=requests, traffic=traffic))

    def _count(self, _: object) -> None:
        self.answered += 1

    async def reaches(self, answers: int) -> None:
        async def reached() -> bool:
            return self.answered >= answers

        await until(reached, f"{answers} answers", within=60)

    async def report(self) -> Report:
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
    load = Load(product.url, requests=6_000)

    await load.reaches(1_200)
    with product.backends.killed(*replicas):
        await load.reaches(2_100)
        if control_plane == "alive":
            product.list_replicas(replicas, ready=False)
        await load.reaches(4_200)
    if control_plane == "alive":
        product.list_replicas(replicas)
    await back_on_local(product)
    report = await load.report()

    assert report.errors == {}
    assert report.summary.requests == 6_000
    assert report.summary.remote > 1_500


async def test_scaled_to_none_and_back_under_load_fails_no_request(product: Product) -> None:
    load = Load(product.url, requests=3_000)

    await load.reaches(700)
    product.list_replicas(())
    await load.reaches(1_700)
    product.list_replicas(product.backends.local)
    await back_on_local(product)
    report = await load.report()

    assert report.errors == {}
    assert report.summary.remote > 300
