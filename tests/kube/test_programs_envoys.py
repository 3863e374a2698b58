"""Several replicas of the xDS server, several Envoys: whether all of them have a model is in its status."""

from __future__ import annotations

import signal
from dataclasses import replace
from functools import partial

from controller.api.timing import ReportTiming, StreamTiming
from tests.support.beamlit import eventually
from tests.support.forked import Forked
from tests.support.kube.program import Program
from tests.support.kube.site import Site, model
from tests.support.timing import PATIENT

SHORT = replace(
    PATIENT,
    reports=ReportTiming(reported_every=0.1, envoys_away=2.0, forget_after=2.0, longest_retry=0.5),
    streams=StreamTiming(keepalive_every=600.0),
)
"""Who is gone is soon known to be. One that is stopped is there for as long as the test takes."""
START = partial(Forked, context=SHORT)


async def test_programmed_counts_every_envoy_of_every_replica(site: Site) -> None:
    replica, first, second = site.backend("local-1"), site.backend("remote-1"), site.backend("remote-2")
    site.write(site.served("chat", [replica], first))
    await site.start(xds_servers=2, envoys=2, start=START)
    for xds_server in site.xds_servers:
        # Clusters, endpoints, listeners, routes.
        await eventually(partial(xds_server.metric, "beamlit_xds_acks_total"), lambda count: count >= 4)
    await site.until_condition("chat", "Programmed", "True", "Programmed")
    silent = site.envoys[1].process
    silent.send(signal.SIGSTOP)
    try:
        await site.change(model("chat", second))
        message = await site.until_condition("chat", "Programmed", "False", "Pending")
        assert "waiting for" in message
        await site.until_condition("chat", "Ready", "False", "Updating")
        # The other Envoy has it, and is heard of when the next decision is made; one is enough for nothing.
        await eventually(site.envoys[0].dump, lambda dump: f'"port_value": {second.port}' in dump)
        await eventually(partial(unacknowledged, site.xds_servers[0]), lambda count: count == 0)
        await site.change(model("chat", second).overridden("remote=20"))
        await site.until_split("chat", "80/20 Override")
        assert (await site.condition("chat", "Programmed"))[1] == "Pending"
    finally:
        silent.send(signal.SIGCONT)
    await site.until_condition("chat", "Programmed", "True", "Programmed")
    for envoy in site.envoys:
        envoy.process.kill()
    await site.until_condition("chat", "Programmed", "False", "NoProxies")
    await site.until_condition("chat", "Ready", "False", "NotProgrammed")
    # Nor is one that shows what is none of an Envoy's; why is said where somebody looks.
    await site.envoy("mistaken", certificate="controller")
    await site.until_message("chat", "Programmed", f"{site.host} is no Envoy of ours: the client is controller")


async def test_what_is_programmed_stays_so_while_no_xds_server_can_be_heard(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    chat = site.served("chat", [replica], remote)
    site.write(chat)
    await site.start(start=START)
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
    await site.until_condition("chat", "Programmed", "True")


async def test_an_xds_server_that_goes_takes_its_envoys_out_of_the_count(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.write(site.served("chat", [replica], remote))
    await site.start(xds_servers=2, envoys=2, start=START)
    await site.until_condition("chat", "Ready", "True")
    # One Envoy is with nobody now: who is not connected is not waited for.
    site.xds_servers[1].kill()
    await site.change(model("chat", remote).offloading(percentage=10))
    await site.until_condition("chat", "Programmed", "True", "Programmed")


async def unacknowledged(xds_server: Program) -> float:
    """How many responses its Envoys have not acknowledged."""
    return await xds_server.metric("beamlit_xds_responses_total") - await xds_server.metric("beamlit_xds_acks_total")
