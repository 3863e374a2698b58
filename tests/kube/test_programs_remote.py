"""What the xDS servers find out about a remote backend, in the object: the condition RemoteHealthy."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from controller.api.timing import CheckTiming, ReportTiming
from tests.support.forked import Forked
from tests.support.kube.site import Site
from tests.support.network import unused_port
from tests.support.timing import PATIENT

SEEN = "seen from the xDS server"
OFTEN = replace(
    PATIENT,
    checks=CheckTiming(least_interval=0.5, in_doubt=0.2, longest=20.0, connect=20.0),
    reports=ReportTiming(alive_within=60.0, old_after=60.0),
)
"""What is late is not taken for what does not answer: it would be written."""


async def test_a_remote_that_does_not_answer_is_in_the_object_with_its_reason(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    remote.report_health(503)
    check, host = {"path": "/healthz", "interval": "1s"}, f"{remote.host}:{remote.port}"
    site.write(
        site.served("chat", [replica]).with_remote(host, healthCheck=check),
        site.served("gone", [replica]).with_remote(f"{remote.host}:{unused_port()}"),
        site.served("named", [replica]).with_remote("models.invalid"),
    )
    await site.start(xds_servers=2, start=partial(Forked, context=OFTEN))
    said = await site.until_condition("chat", "RemoteHealthy", "False", "ErrorAnswer")
    assert said == f"{SEEN}: GET /healthz answers 503"
    await site.until_split("chat", "100/0 RemoteDown")
    assert "cannot be connected to" in await site.until_condition("gone", "RemoteHealthy", "False", "NotConnected")
    assert "cannot be resolved" in await site.until_condition("named", "RemoteHealthy", "False", "NameNotResolved")
    assert (await site.status("chat"))["remote"]["healthy"] is False
    # What changes is written; that it is found so again is not. All that the others had to say is said by then.
    await site.until_condition("chat", "Ready", "True")
    for name in ("gone", "named"):
        await site.until_condition(name, "Programmed", "True")
    written = await site.writes()
    remote.report_health(200)
    await site.until_condition("chat", "RemoteHealthy", "True", "Answering")
    await site.until_split("chat", "100/0 Steady")
    assert await site.writes() - written <= 3
