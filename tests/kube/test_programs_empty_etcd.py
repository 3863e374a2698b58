"""The API server comes back without its data: what becomes of the models, and of their traffic."""

from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path

from controller.api.timing import KubeTiming, Timing
from tests.support.beamlit import eventually
from tests.support.fork_server import Forked
from tests.support.kube.api_server import ApiServer
from tests.support.kube.crds import install_crds
from tests.support.kube.program import Program
from tests.support.kube.site import Site
from tests.support.objects import a_secret

SECOND_LOOK = Timing(kube=KubeTiming(second_look=6.0))
"""Late enough that what a user puts back at once is there before it."""


async def test_etcd_that_comes_back_empty_handed_takes_nothing_down_before_a_second_look(
    own_api_server: ApiServer, tmp_path: Path
) -> None:
    install_crds(own_api_server)
    own_api_server.kubectl("create", "namespace", "models")
    async with Site(own_api_server, "models", tmp_path).running() as site:
        replica, remote = site.backend("local-1"), site.backend("remote")
        kept, lost = site.served("kept", [replica], remote), site.served("lost", [replica], remote)
        site.write(kept, lost)
        await site.start(start=partial(Forked, context=SECOND_LOOK))
        for name in ("kept", "lost"):
            await site.until_condition(name, "Ready", "True")
        ports = {name: await site.port(name) for name in ("kept", "lost")}
        (xds_server,), (controller,) = site.xds_servers, site.controllers
        for number in range(100):  # So that the new history lies behind for long, whatever is written into it.
            await site.change(a_secret("a").holding(key=f"{number}"))
        await site.change(kept.overridden("remote=0"), lost.overridden("remote=0"))
        for name in ("kept", "lost"):
            await site.until_split(name, "100/0 Override")
        suspected = partial(xds_server.metric, "beamlit_store_suspect_lists")
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
                await eventually(partial(doubting, site), bool, within=40)
                await site.change(site.served("kept", [replica], remote))
            # What is missing is served for as long as nobody believes that it is.
            doubts, most, served = await suspected(), 0.0, set()
            while doubts >= most:
                most = doubts
                reply = await site.ask(ports["lost"])
                doubts = await suspected()
                assert not reply.error or doubts < most
                served.add(reply.server)
            assert "local-1" in served
            # The second look says the same: what is not there any more goes, and the rest is as it was.
            await eventually(lambda: site.ask(ports["lost"]), lambda reply: reply.error, within=40)
            await site.until_condition("kept", "Ready", "True", within=40)
            assert await site.port("kept") == ports["kept"]
            await eventually(suspected, lambda count: count == 0)
        assert xds_server.alive
        assert controller.alive


async def doubting(site: Site) -> list[Program]:
    """The programs that do not believe a list."""
    return [one for one in (*site.controllers, *site.xds_servers) if "list not believed yet" in one.log]
