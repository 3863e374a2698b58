"""What `beamlit envoy` tells Prometheus of its clients is what they got."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from tests.support.data_plane.backends import Backends
from tests.support.data_plane.gateway import Gateway
from tests.support.data_plane.gateways import Site
from tests.support.http import plain_http
from tests.support.metrics import differences
from tests.support.waiting import until


@pytest_asyncio.fixture
async def site(backends: Backends, tmp_path: Path) -> AsyncIterator[Site]:
    async with Site(backends, tmp_path) as site:
        yield site


async def page(gateway: Gateway) -> str:
    async with plain_http() as client:
        return (await client.get(f"http://{gateway.admin}/metrics", timeout=60)).text


async def counted(gateway: Gateway, model: str) -> dict[tuple[str, str], float]:
    """Every sample of one model, by its name and by its code or its bound."""
    return {
        (sample.name.removeprefix("beamlit_gateway_"), sample.labels.get("code") or sample.labels.get("le", "")): (
            sample.value
        )
        for family in text_string_to_metric_families(await page(gateway))
        for sample in family.samples
        if f"{sample.labels.get('namespace')}/{sample.labels.get('name')}" == model
    }


async def test_answers_and_what_is_in_flight_are_counted_for_each_model(site: Site) -> None:
    gateway = await site.add()
    model, address = str(site.models[0].key).partition("/")[2], site.models[0].url
    async with plain_http() as client:
        for _ in range(3):
            assert (await client.get(address, timeout=60)).status_code == 200
        held = asyncio.create_task(client.get(f"{address.rstrip('/')}/held", timeout=60))
        await site.replica.holds(1)

        async def is_seen() -> bool:
            seen = await counted(gateway, model)
            return (seen.get(("requests_total", "2xx")), seen.get(("requests_in_flight", ""))) == (3, 1)

        await until(is_seen, "three answers are counted, and one request in flight")
        site.replica.released.set()
        await held

    async def is_over() -> bool:
        seen = await counted(gateway, model)
        # Envoy adds up its histograms every five seconds.
        lasted = [seen.get(("request_duration_seconds_bucket", bound)) for bound in ("300.0", "+Inf")]
        return seen.get(("requests_in_flight", "")) == 0 and lasted == [4, 4]

    await until(is_over, "nothing is in flight, and the time of every request is counted")
    assert differences("E", await page(gateway)) == []
