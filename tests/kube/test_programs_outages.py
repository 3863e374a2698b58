"""The API server goes away and comes back: what becomes of the traffic, and of the models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.beamlit import eventually
from tests.support.kube.api_server import ApiServer
from tests.support.kube.crds import install_crds
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.reading_xds import served_by_all
from tests.support.kube.site import TOKEN, Site, endpoints

OUTAGE = 10.0
"""Seconds for which nobody listens; before that it is silent for about as long."""


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
    await site.start(controllers=2, xds_servers=2, envoys=1)
    await site.until_condition("chat", "Ready", "True")
    port = await site.port("chat")
    await site.until_answered(port, "local-1")
    async with site.no_request_fails(port):
        own_api_server.pause()
        await asyncio.sleep(OUTAGE / 3)
        # Nobody can be told; Envoy sees by itself that nobody answers.
        for replica in replicas:
            replica.kill()
        await site.until_answered(port, "remote")
        for replica in replicas:
            replica.revive()
        await site.until_answered(port, "local-1")
        own_api_server.resume()
        await site.change(chat.overridden("remote=30"))
        await site.until_split("chat", "70/30 Override", within=40)
        own_api_server.stop()
        await asyncio.sleep(OUTAGE)
        assert all(program.alive for program in (*site.controllers, *site.xds_servers))
        own_api_server.launch()
        await eventually(lambda: asyncio.to_thread(own_api_server.ready), bool, within=60)
        await site.change(chat.overridden("remote=60"), endpoints("chat", replicas[1], ready=False))
        await site.until_split("chat", "40/60 Override", within=40)
        await site.until_condition("chat", "Ready", "True")
    # Who was away looks again every ten seconds at the latest.
    await eventually(lambda: site.local_share(port), lambda share: 0.25 < share < 0.55)
    await served_by_all(site.replicas, TOKEN)
