"""The API server comes back without its data: what becomes of the models, and of their traffic."""

from __future__ import annotations

import asyncio
import re
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from pathlib import Path

from controller.api.timing import KubeTiming
from tests.support.beamlit import eventually
from tests.support.forked import Forked
from tests.support.kube.api_server import ApiServer
from tests.support.kube.cluster import User
from tests.support.kube.crds import install_crds
from tests.support.kube.gates import Gate
from tests.support.kube.program import Program
from tests.support.kube.proxy import Proxy
from tests.support.kube.request import Request
from tests.support.kube.site import Site
from tests.support.kube.watched import whole_list
from tests.support.objects import a_secret
from tests.support.timing import PATIENT
from tests.support.waiting import until

SECOND_LOOK = replace(PATIENT, kube=KubeTiming(second_look=0.5))
"""Soon: what a user puts back is there before it because the look is held until then."""


async def test_etcd_that_comes_back_empty_handed_takes_nothing_down_before_a_second_look(
    own_api_server: ApiServer, tmp_path: Path
) -> None:
    install_crds(own_api_server)
    own_api_server.kubectl("create", "namespace", "models")
    async with (
        Site(own_api_server, "models", tmp_path).running() as site,
        Proxy(own_api_server, tmp_path).running() as of_xds_server,
        Proxy(own_api_server, tmp_path).running() as of_controller,
    ):
        replica, remote = site.backend("local-1"), site.backend("remote")
        kept, lost = site.served("kept", [replica], remote), site.served("lost", [replica], remote)
        site.write(kept, lost)
        start = partial(Forked, context=SECOND_LOOK)
        xds_server = site.xds_server(user=through(of_xds_server, site.user("xds-server")), start=start)
        controller = site.controller(user=through(of_controller, site.user("controller")), start=start)
        await site.envoy()
        for name in ("kept", "lost"):
            await site.until_condition(name, "Ready", "True")
        ports = {name: await site.port(name) for name in ("kept", "lost")}
        for number in range(100):  # So that the new history lies behind for long, whatever is written into it.
            await site.change(a_secret("a").holding(key=f"{number}"))
        await site.change(kept.overridden("remote=0"), lost.overridden("remote=0"))
        for name in ("kept", "lost"):
            await site.until_split(name, "100/0 Override")
        suspected = partial(xds_server.metric, "beamlit_store_suspect_lists")
        async with site.no_request_fails(ports["kept"]):
            looks = (second_looks_held(of_xds_server, xds_server), second_looks_held(of_controller, controller))
            # What is missing is served for as long as nobody believes that it is.
            with looks[0] as first, looks[1] as second:
                async with site.no_request_fails(ports["lost"]):
                    own_api_server.stop()
                    own_api_server.launch(empty=True)
                    await eventually(lambda: asyncio.to_thread(own_api_server.ready), bool, within=60)
                    # Whoever runs the cluster puts back what it needs, and the users their objects, one of them not.
                    await asyncio.to_thread(install_crds, own_api_server)
                    await asyncio.to_thread(own_api_server.kubectl, "create", "namespace", "models")
                    # With new tokens, which the programs find where the old ones were.
                    through(of_xds_server, await asyncio.to_thread(site.user, "xds-server"))
                    through(of_controller, await asyncio.to_thread(site.user, "controller"))
                    await asyncio.to_thread(site.announce)
                    for gate in (first, second):
                        await until(partial(models_listed, gate), "the models are looked at again", within=60)
                    await site.change(site.served("kept", [replica], remote))
                    assert await suspected() > 0
                    assert not (await site.ask(ports["lost"])).error
            # The second look says the same: what is not there any more goes, and the rest is as it was.
            await eventually(lambda: site.ask(ports["lost"]), lambda reply: reply.error, within=40)
            await site.until_condition("kept", "Ready", "True", within=40)
            assert await site.port("kept") == ports["kept"]
            await eventually(suspected, lambda count: count == 0)
        assert xds_server.alive
        assert controller.alive


def through(proxy: Proxy, user: User) -> User:
    """This user, who asks a proxy."""
    return User(user.token, proxy.kubeconfig_of(user))


def second_looks_held(proxy: Proxy, program: Program) -> AbstractContextManager[Gate]:
    """Hold the lists of what a program did not believe the first time: that it does not is logged before."""

    def is_second(request: Request) -> object:
        return whole_list(request) and re.search(rf"list not believed yet kind='{request.resource}\b", program.log)

    return proxy.requests_held(is_second)


def models_listed(gate: Gate) -> bool:
    return any(request.resource == "modeldeployments" for request in gate.waiting)
