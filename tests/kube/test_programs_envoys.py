"""Several replicas of the xDS server, several Envoys: what all of them have, and what is said of that."""

from __future__ import annotations

import asyncio
import signal
from functools import partial

from tests.support.beamlit import eventually
from tests.support.kube.program import Program
from tests.support.kube.reading_xds import served_by, served_by_all
from tests.support.kube.site import TOKEN, Site, endpoints, model
from tests.support.kube.switchboard import Switchboard
from tests.support.objects import a_secret
from xds_server.snapshot.types import SHORT


async def test_programmed_counts_every_envoy_of_every_replica(site: Site) -> None:
    replica, first, second = site.backend("local-1"), site.backend("remote-1"), site.backend("remote-2")
    site.write(site.served("chat", [replica], first))
    await site.start(xds_servers=2, envoys=2)
    for xds_server in site.xds_servers:
        # Clusters, endpoints, listeners, routes.
        await eventually(partial(xds_server.metric, "beamlit_xds_acks_total"), lambda count: count >= 4)
    await site.until_condition("chat", "Programmed", "True", "Programmed")
    silent = site.envoys[1].process
    silent.send(signal.SIGSTOP)
    try:
        await site.change(model("chat", second))
        await site.until_condition("chat", "Programmed", "False", "Pending")
        await site.until_condition("chat", "Ready", "False", "NotProgrammed")
        # The other Envoy has it long since; one is enough for nothing.
        await asyncio.sleep(1)
        assert (await site.condition("chat", "Programmed"))[1] == "Pending"
    finally:
        silent.send(signal.SIGCONT)
    await site.until_condition("chat", "Programmed", "True", "Programmed")
    for envoy in site.envoys:
        envoy.process.kill()
    await site.until_condition("chat", "Programmed", "False", "NoProxies")
    await site.until_condition("chat", "Ready", "False", "NotProgrammed")


async def test_what_is_programmed_stays_so_while_no_xds_server_can_be_heard(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    chat = site.served("chat", [replica], remote)
    site.write(chat)
    await site.start()
    await site.until_condition("chat", "Ready", "True")
    (controller,), (xds_server,) = site.controllers, site.xds_servers
    assert controller.end() == 0
    xds_server.kill()
    controller.start()
    await controller.ready()
    # A decision is made, and written, and takes nothing back.
    await site.change(chat.overridden("remote=20"))
    await site.until_split("chat", "80/20 Override")
    assert (await site.condition("chat", "Programmed"))[:2] == ("True", "Programmed")
    assert (await site.condition("chat", "Ready"))[:2] == ("True", "Ready")
    # Of another generation nothing is known.
    await site.change(chat.overridden("remote=20").offloading(percentage=10))
    await site.until_condition("chat", "Programmed", "Unknown", "NotReported")
    xds_server.start()
    await site.until_condition("chat", "Programmed", "True", within=40)


async def test_an_xds_server_that_goes_takes_its_envoys_out_of_the_count(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.write(site.served("chat", [replica], remote))
    await site.start(xds_servers=2, envoys=2)
    await site.until_condition("chat", "Ready", "True")
    # One Envoy is with nobody now: who is not connected is not waited for.
    site.xds_servers[1].kill()
    await site.change(model("chat", remote).offloading(percentage=10))
    await site.until_condition("chat", "Programmed", "True", "Programmed", within=40)


async def test_every_replica_serves_equal_bytes_and_versions(site: Site) -> None:
    replicas, remote = [site.backend("local-1"), site.backend("local-2")], site.backend("remote")
    key = {"type": "apiKey", "apiKey": {"secretRef": {"name": "key"}}}
    host = f"{remote.host}:{remote.port}"
    keyed = site.served("keyed", replicas).with_remote(host, authConfig=key, headersToAdd={"b": "2", "a": "1"})
    site.write(a_secret("key").holding(apiKey="abc"), keyed)
    site.write(*(site.served(f"m{number}", replicas, remote) for number in range(4)))
    await site.start(xds_servers=2, envoys=1)
    await site.until_condition("keyed", "Ready", "True")
    await site.until_condition("m3", "Ready", "True")
    before = await served_by_all(site.replicas, TOKEN)
    assert {SHORT[type_url] for type_url, _ in before} == {"SDS", "CDS", "EDS", "LDS", "RDS"}
    # One of them learns everything at once, the other one thing after another.
    await site.change(site.served("late", replicas, remote).overridden("remote=30"))
    await site.change(endpoints("m1", replicas[0], ready=False))
    await site.remove(model("m2"))
    await site.until_condition("late", "Ready", "True")
    await eventually(lambda: served_by(site.replicas[0], TOKEN), lambda seen: not any("m2" in name for _, name in seen))
    grown = await served_by_all(site.replicas, TOKEN)
    assert grown != before
    site.xds_servers[1].kill()
    site.xds_servers[1].start()
    await site.xds_servers[1].ready()
    assert await served_by(site.replicas[1], TOKEN) == grown


async def test_an_envoy_that_moves_to_another_replica_is_sent_nothing_again(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.write(*(site.served(f"m{number}", [replica], remote) for number in range(6)))
    await site.start(xds_servers=2, envoys=0)
    async with Switchboard(site.replicas[0]).running() as service:
        envoy = await site.envoy("envoy", service.address)
        for number in range(6):
            await site.until_condition(f"m{number}", "Ready", "True")
        ports, everything = [await site.port(f"m{number}") for number in range(6)], service.received
        counters = r"update_(success|rejected)$|config_reload$|(cluster|listener)_(added|modified|removed)$"
        before = await envoy.stats(counters)
        async with site.no_request_fails(*ports):
            await service.lead_to(site.replicas[1])
            await eventually(lambda: envoys_of(site.xds_servers[1]), lambda count: count == 1)
            # What is new comes from the other replica now, and is all that comes.
            await site.change(model("m0", remote).overridden("remote=30"))
            rds = f"http.{site.namespace}/m0.rds.{site.namespace}/m0"
            await eventually(
                lambda: envoy.stat(f"{rds}.config_reload"), lambda count: count > before[f"{rds}.config_reload"]
            )
        after = await envoy.stats(counters)
    assert {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name)} == {
        f"{rds}.config_reload": 1,
        f"{rds}.update_success": 1,
        # Who asks for everything is answered, if only that there is nothing new.
        "cluster_manager.cds.update_success": 1,
        "listener_manager.lds.update_success": 1,
    }
    assert service.received < everything / 8


async def envoys_of(xds_server: Program) -> float:
    return await xds_server.metric("beamlit_xds_streams")


async def test_at_rest_nothing_is_written(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    names = [f"m{number}" for number in range(5)]
    site.write(*(site.served(name, [replica], remote) for name in names))
    await site.start(xds_servers=2, envoys=2)
    for name in names:
        await site.until_condition(name, "Ready", "True")
    await asyncio.sleep(2)  # Nobody says when the last write was made.
    before, written = await versions(site, names), await site.writes()
    assert written >= len(names)
    await asyncio.sleep(10)
    assert (await versions(site, names), await site.writes()) == (before, written)
    # Nor does an Envoy write that goes and comes back.
    envoy = site.envoys[1]
    envoy.process.kill()
    again = await site.envoy("envoy-again", site.replicas[1])
    await eventually(lambda: again.stat("listener_manager.total_listeners_active"), lambda count: count >= len(names))
    await asyncio.sleep(2)
    assert (await versions(site, names), await site.writes()) == (before, written)
    # Nor another controller, that decides everything anew.
    (controller,) = site.controllers
    assert controller.end() == 0
    controller.start()
    await controller.ready()
    await eventually(controller.leads, bool)
    await asyncio.sleep(4)
    assert (await versions(site, names), await site.writes()) == (before, 0)


async def versions(site: Site, names: list[str]) -> list[str]:
    return [(await site.read(name))["metadata"]["resourceVersion"] for name in names]
