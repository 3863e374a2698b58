"""Where nothing changes nothing is written, whoever comes and goes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial

from controller.api.timing import CheckTiming, ReportTiming, StatusTiming, StreamTiming
from tests.support.beamlit import eventually
from tests.support.forked import Forked
from tests.support.kube.program import Program
from tests.support.kube.site import Site
from tests.support.timing import PATIENT

OFTEN = replace(
    PATIENT,
    checks=CheckTiming(least_interval=0.2, assessed_every=0.2, in_doubt=0.1, longest=60.0, connect=60.0),
    streams=StreamTiming(loads_every=0.25),
    reports=ReportTiming(reported_every=0.1, alive_within=60.0, old_after=60.0),
    statuses=StatusTiming(loads_looked_at_every=0.2),
)
"""Everything that happens by itself, and could be a reason to write, is as often as can be. A check has all the time
that it takes, and so has a replica that reports: one that is late is not one that is gone.
"""
LOOKS = 12
"""Each of the checks of the remote backend is one of what happens by itself; in reality they take a minute."""


async def test_at_rest_nothing_is_written(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    names = [f"m{number}" for number in range(5)]
    site.write(*(site.served(name, [replica], remote) for name in names))
    await site.start(xds_servers=2, envoys=2, start=partial(Forked, context=OFTEN))
    for name in names:
        await site.until_condition(name, "Ready", "True")
        await site.until_condition(name, "RemoteHealthy", "True")
    await looked_at(site)  # Nobody says when the last write was made.
    before, written = await versions(site, names), await site.writes()
    assert written >= len(names)
    await looked_at(site)
    assert (await versions(site, names), await site.writes()) == (before, written)
    # Nor does an Envoy write that goes and comes back.
    envoy = site.envoys[1]
    envoy.process.kill()
    again = await site.envoy("envoy-again", site.replicas[1])
    await eventually(again.has_begun, bool)
    await looked_at(site)
    assert (await versions(site, names), await site.writes()) == (before, written)
    # Nor another controller, that decides everything anew.
    (controller,) = site.controllers
    assert controller.end() == 0
    controller.start()
    await controller.ready()
    await eventually(controller.leads, bool)
    await eventually(partial(controller.metric, "beamlit_model_decisions_total"), lambda count: count >= len(names))
    await looked_at(site)
    assert (await versions(site, names), await site.writes()) == (before, 0)


async def looked_at(site: Site) -> None:
    """Wait until each xDS server has checked the remote backend some times more."""

    async def looked_at_by(xds_server: Program) -> None:
        checks = partial(xds_server.metric, "beamlit_remote_checks_total")
        before = await checks()
        await eventually(checks, lambda count: count >= before + LOOKS)

    await asyncio.gather(*map(looked_at_by, site.xds_servers))


async def versions(site: Site, names: list[str]) -> list[str]:
    return [(await site.read(name))["metadata"]["resourceVersion"] for name in names]
