"""`maxRequestsPerReplica` in a cluster: shared by the ready Envoys of the gateway's Service."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from functools import partial

from tests.support.beamlit import eventually
from tests.support.data_plane.backends import Backend
from tests.support.envoy import Envoy
from tests.support.forked import Forked
from tests.support.kube.site import Site
from tests.support.load import Report, Traffic, closed_loop
from tests.support.objects import ASlice, a_slice
from tests.support.timing import PATIENT


async def test_the_limit_follows_replicas_and_envoys(site: Site) -> None:
    first, second, remote = site.backend("local-1"), site.backend("local-2"), site.backend("remote")
    site.write(site.served("chat", [first], remote).offloading(maxRequestsPerReplica=6), gateway("10.9.0.1"))
    # A replica that is slow to answer a check takes its requests all the same: what leaves does so for the limit.
    slow = replace(PATIENT.gateway, resized_every=0.2, check_near_every=20.0, check_again_within=20.0)
    timing = replace(PATIENT, gateway=slow)
    site.xds_server("--gateway-service", f"{site.namespace}/gateway", start=partial(Forked, context=timing))
    site.controller()
    envoy = await site.envoy()

    await site.until_condition("chat", "Ready", "True")
    await until_limit(envoy, 6)
    assert (await site.status("chat"))["local"]["capacity"] == 6

    await site.change(gateway("10.9.0.1", "10.9.0.2"))
    await until_limit(envoy, 3)

    site.served("chat", [first, second])
    await until_limit(envoy, 6)
    await site.until_status("chat", lambda status: status["local"].get("capacity") == 12)

    url = f"http://{site.gateway}:{await site.port('chat')}/"
    for _ in range(10):
        # One less: what another of its two workers gives to a connection just now is counted twice.
        below = await at_once(5, url, envoy, site.backends)
        assert below.errors == {}
        assert below.summary.remote == 0
    above = await at_once(60, url, envoy, site.backends)
    assert above.errors == {}
    assert 5 <= above.summary.local <= 7  # two workers


async def test_more_envoys_than_share_the_limit_are_told_of(site: Site) -> None:
    """Nobody said how many there are, so each lets pass what is meant for one."""
    site.write(
        site.served("chat", [site.backend("local-1")], site.backend("remote")).offloading(maxRequestsPerReplica=6)
    )
    server = site.xds_server("--checks-shared-by", "1")
    site.controller()
    await until_limit(await site.envoy("one"), 6)
    assert "more Envoys" not in server.log

    await until_limit(await site.envoy("two"), 6)
    (line,) = [line for line in server.log.splitlines() if "more Envoys are connected" in line]
    assert "connected=2" in line
    assert "share=1" in line
    (line,) = [line for line in server.log.splitlines() if "more Envoys check replicas" in line]
    assert "envoys=2 share=1" in line


async def at_once(requests: int, url: str, envoy: Envoy, backends: list[Backend]) -> Report:
    """Send so many requests where none is in flight; replicas answer none before all have arrived."""

    async def in_flight() -> int:
        (active,) = (await envoy.stats(r"chat/local\.upstream_rq_active$")).values()
        return active

    async def arrived() -> int:
        return sum([await asyncio.to_thread(one.count) for one in backends])

    await eventually(in_flight, lambda count: count == 0)
    before = await arrived()
    held = Traffic(headers=lambda _: {"on-local": "held=all"})
    sending = asyncio.create_task(closed_loop(url, clients=requests, requests=requests, traffic=held))
    await eventually(arrived, lambda count: count == before + requests)
    for one in backends:
        await asyncio.to_thread(one.release, "all")
    return await sending


def gateway(*ready: str) -> ASlice:
    return a_slice("gateway").ready(*ready)


async def until_limit(envoy: Envoy, limit: int) -> None:
    """Wait until the only route of this Envoy that counts lets so many requests stay."""

    async def found() -> list[int]:
        return [int(number) for number in re.findall(r"numPendingRequests\(\) \S+ ([0-9]+)", await envoy.dump())]

    await eventually(found, lambda seen: seen == [limit])
