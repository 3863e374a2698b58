"""Several replicas of the xDS server serve the same, so that an Envoy may move from one to another."""

from __future__ import annotations

from functools import partial

from controller.api.timing import REAL
from tests.support.beamlit import eventually, executed
from tests.support.forked import Forked
from tests.support.kube.program import Program
from tests.support.kube.site import Site, endpoints, model
from tests.support.kube.switchboard import Switchboard
from tests.support.objects import a_secret
from xds_server.snapshot.snapshot import SHORT

LOOKED_UP = ("cluster.backend/", "cluster.xds_server.")
"""Clusters with a host name: what is counted of them is how often that was looked up, every few seconds."""


async def test_every_replica_serves_equal_bytes_and_versions(site: Site) -> None:
    replicas, remote = [site.backend("local-1"), site.backend("local-2")], site.backend("remote")
    key = {"type": "apiKey", "apiKey": {"secretRef": {"name": "key"}}}
    host = f"{remote.host}:{remote.port}"
    keyed = site.served("keyed", replicas).with_remote(host, authConfig=key, headersToAdd={"b": "2", "a": "1"})
    site.write(a_secret("key").holding(apiKey="abc"), keyed)
    site.write(*(site.served(f"m{number}", replicas, remote) for number in range(4)))
    # As the one that is executed, which has another seed of its hashes than one that is forked.
    await site.start(xds_servers=1, envoys=1, start=partial(Forked, context=REAL))
    await site.xds_server(start=executed).ready()
    await site.until_condition("keyed", "Ready", "True")
    await site.until_condition("m3", "Ready", "True")
    before = await site.served_by_all()
    assert {SHORT[type_url] for type_url, _ in before} == {"SDS", "CDS", "EDS", "LDS", "RDS", "SRDS"}
    # One of them learns everything at once, the other one thing after another.
    await site.change(site.served("late", replicas, remote).overridden("remote=30"))
    await site.change(endpoints("m1", replicas[0], ready=False))
    await site.remove(model("m2"))
    await site.until_condition("late", "Ready", "True")
    await eventually(lambda: site.resources(0), lambda seen: not any("m2" in name for _, name in seen))
    grown = await site.served_by_all()
    assert grown != before
    site.xds_servers[0].kill()
    site.xds_servers[0].start()
    await site.xds_servers[0].ready()
    assert await site.resources(0) == grown


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
            rds = f"http.model/{site.namespace}/m0.rds.port/{ports[0]}/{site.namespace}"
            await eventually(
                lambda: envoy.stat(f"{rds}.config_reload"), lambda count: count > before[f"{rds}.config_reload"]
            )
        after = await envoy.stats(counters)
    grown = {name: count - before.get(name, 0) for name, count in after.items() if count != before.get(name)}
    assert {name: count for name, count in grown.items() if not name.startswith(LOOKED_UP)} == {
        f"{rds}.config_reload": 1,
        f"{rds}.update_success": 1,
        # Who asks for everything is answered, if only that there is nothing new.
        "cluster_manager.cds.update_success": 1,
        "listener_manager.lds.update_success": 1,
    }
    assert service.received < everything / 8


async def envoys_of(xds_server: Program) -> float:
    return await xds_server.metric("beamlit_xds_streams")
