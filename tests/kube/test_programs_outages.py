"""The API server goes away and comes back: what becomes of the traffic, and of the models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from controller.api.timing import KubeTiming, StatusTiming
from tests.support.beamlit import eventually
from tests.support.forked import Forked
from tests.support.kube.api_server import ApiServer
from tests.support.kube.crds import install_crds
from tests.support.kube.elected import timing
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.site import Site, endpoints
from tests.support.timing import PATIENT

SHORT = replace(
    PATIENT,
    lease=timing(6),
    kube=KubeTiming(longest_retry=1.0, patience=4.0, longest_relist=2.0),
    statuses=StatusTiming(longest_rest_while_away=2.0),
)
"""Whoever leads gives up within seconds, and who was away looks again as soon."""


@pytest.fixture
async def own_site(own_api_server: ApiServer, tmp_path: Path) -> AsyncIterator[Site]:
    install_crds(own_api_server)
    with fresh_namespace(own_api_server) as namespace:
        async with Site(own_api_server, namespace, tmp_path).running() as site:
            yield site


async def test_an_api_server_that_is_away_costs_no_request(own_api_server: ApiServer, own_site: Site) -> None:
    site = own_site
    replicas, remote = [site.backend("local-1"), site.backend("local-2")], site.backend("remote")
    chat = site.served("chat", replicas, remote)
    site.write(chat)
    await site.start(controllers=2, xds_servers=2, envoys=1, start=partial(Forked, context=SHORT))
    await site.until_condition("chat", "Ready", "True")
    port = await site.port("chat")
    await site.until_answered(port, "local-1")
    async with site.no_request_fails(port):
        own_api_server.pause()
        await eventually(lambda: leading(site), lambda count: count == 0)
        # Nobody can be told; Envoy sees by itself that nobody answers.
        for replica in replicas:
            replica.kill()
        await site.until_answered(port, "remote")
        for replica in replicas:
            replica.revive()
        await site.until_answered(port, "local-1")
        own_api_server.resume()
        await site.change(chat.overridden("remote=30"))
        await site.until_split("chat", "70/30 Override")
        own_api_server.stop()
        # Longer than a leader may lead on.
        await eventually(lambda: leading(site), lambda count: count == 0)
        assert all(program.alive for program in (*site.controllers, *site.xds_servers))
        own_api_server.launch()
        await eventually(lambda: asyncio.to_thread(own_api_server.ready), bool, within=60)
        await site.change(chat.overridden("remote=60"), endpoints("chat", replicas[1], ready=False))
        await site.until_split("chat", "40/60 Override")
        await site.until_condition("chat", "Ready", "True")
    await eventually(lambda: site.local_share(port), lambda share: 0.25 < share < 0.55)
    await site.served_by_all()


async def leading(site: Site) -> int:
    """How many controllers lead."""
    return sum(await asyncio.gather(*(one.leads() for one in site.controllers)))
