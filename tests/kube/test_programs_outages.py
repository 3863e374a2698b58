"""The API server goes away, or comes back without its data: what becomes of the traffic, and of the models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from controller.api.timing import REAL
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


async def test_etcd_that_comes_back_empty_handed_takes_nothing_down_before_a_second_look(
    own_api_server: ApiServer, tmp_path: Path
) -> None:
    install_crds(own_api_server)
    own_api_server.kubectl("create", "namespace", "models")
    async with Site(own_api_server, "models", tmp_path).running() as site:
        replica, remote = site.backend("local-1"), site.backend("remote")
        kept, lost = site.served("kept", [replica], remote), site.served("lost", [replica], remote)
        site.write(kept, lost)
        await site.start()
        for name in ("kept", "lost"):
            await site.until_condition(name, "Ready", "True")
        ports = {name: await site.port(name) for name in ("kept", "lost")}
        (xds_server,), (controller,) = site.xds_servers, site.controllers
        async with site.no_request_fails(ports["kept"]):
            async with site.no_request_fails(ports["lost"]):
                own_api_server.stop()
                own_api_server.launch(empty=True)
                await eventually(lambda: asyncio.to_thread(own_api_server.ready), bool, within=60)
                # Whoever runs the cluster puts back what it needs, and the users their objects, one of them not all.
                await asyncio.to_thread(install_crds, own_api_server)
                await asyncio.to_thread(own_api_server.kubectl, "create", "namespace", "models")
                await asyncio.to_thread(site.user, "controller")
                await asyncio.to_thread(site.user, "xds-server")
                await asyncio.to_thread(site.announce)
                await eventually(lambda: xds_server.metric("beamlit_store_suspect_lists"), bool, within=40)
                await asyncio.sleep(REAL.kube.second_look / 2)
                assert (await site.ask(ports["lost"])).server == "local-1"
                await site.change(site.served("kept", [replica], remote))
            # The second look says the same: what is not there any more goes, and the rest is as it was.
            await eventually(lambda: site.ask(ports["lost"]), lambda reply: reply.error, within=40)
            await site.until_condition("kept", "Ready", "True", within=40)
            assert await site.port("kept") == ports["kept"]
            await eventually(lambda: xds_server.metric("beamlit_store_suspect_lists"), lambda count: count == 0)
        assert xds_server.alive
        assert controller.alive
