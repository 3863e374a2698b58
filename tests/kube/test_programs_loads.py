"""What Envoys report of their load reaches the status, through whichever replica of the xDS server."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

from controller.api.timing import ReportTiming, StreamTiming
from controller.gateway.bootstrap import HostPort
from tests.support.beamlit import eventually
from tests.support.forked import Forked
from tests.support.kube.site import Site
from tests.support.kube.switchboard import Switchboard
from tests.support.load import Traffic, closed_loop
from tests.support.measured import in_flight_each
from tests.support.network import unused_port
from tests.support.timing import PATIENT

SHORT = replace(
    PATIENT,
    streams=StreamTiming(loads_every=0.25),
    reports=ReportTiming(reported_every=0.1, old_after=1.0, awaited=1.0),
)


async def test_requests_in_flight_are_in_the_status_and_move_with_their_envoy(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.write(site.served("chat", [replica], remote).measuring(in_flight_each("3")))
    await site.start(xds_servers=2, envoys=0, start=partial(Forked, context=SHORT))
    async with Switchboard(site.replicas[0]).running() as service:
        await site.envoy("envoy", service.address)
        port = await site.port("chat")
        await until_signal(site, "Clear")

        held = Traffic(headers=lambda _: {"on-local": "held=all"})
        waiting = asyncio.create_task(closed_loop(f"http://{site.gateway}:{port}/", 3, 3, held))
        assert (await until_signal(site, "Breached"))["current"] == "3"
        # On its way nobody hears of the Envoy: that is not the same as that it has nothing to do.
        await service.lead_to(HostPort("127.0.0.1", unused_port()))
        assert "current" not in await until_signal(site, "Unknown")
        await service.lead_to(site.replicas[1])
        assert (await until_signal(site, "Breached"))["current"] == "3"
        await asyncio.to_thread(replica.release, "all")
        assert (await waiting).errors == {}
        await until_signal(site, "Clear")


async def until_signal(site: Site, state: str) -> dict[str, Any]:
    """Wait until the one signal of the model is in this state, and return it."""

    async def signal() -> dict[str, Any]:
        (said,) = (await site.status("chat")).get("signals") or [{}]
        return dict(said)

    return await eventually(signal, lambda said: said.get("state") == state, within=30)
