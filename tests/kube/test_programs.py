"""Both programs in a cluster, with a real Envoy: a model from its beginning, and over a restart."""

from __future__ import annotations

import json
from typing import Any

from tests.support.beamlit import eventually, executed
from tests.support.kube.site import Site, endpoints, model

EVENTS = {("Normal", "Ready"), ("Warning", "LocalDown"), ("Normal", "Recovering"), ("Normal", "Steady")}
"""Of a model that is edited, loses its replicas and gets them back."""


async def test_a_model_is_served_leaves_when_its_replicas_are_gone_and_comes_back(site: Site) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    site.write(site.served("a", [replica], remote))
    # As an operator starts them.
    form = ("--log-format", "json")
    # Who begins before, or stays longer, warns of a server that is not there.
    xds_server = site.xds_server(*form, start=executed)
    await xds_server.ready()
    controller = site.controller(*form, start=executed)
    await controller.ready()
    envoy = await site.envoy()
    await site.until_condition("a", "Ready", "True")
    site.kubectl("wait", "modeldeployment/a", "--for=condition=Ready", "--timeout=3m")
    port = await site.port("a")
    await site.until_answered(port, "local-1")
    # An edit is on its way for a moment, which is nothing to be told of.
    await site.change(model("a", remote).offloading(percentage=60))
    await site.until_condition("a", "Ready", "True")
    async with site.no_request_fails(port):
        await site.change(endpoints("a", replica, ready=False))
        await site.until_answered(port, "remote")
        await site.change(endpoints("a", replica))
        await site.until_answered(port, "local-1", within=40)
        await site.until_split("a", "100/0 Steady")
    await envoy.stop()
    assert [program.end() for program in (*site.controllers, *site.xds_servers)] == [0, 0]
    events = json.loads(site.kubectl("get", "events.v1.events.k8s.io", "--output=json"))["items"]
    assert {(one["type"], one["reason"]) for one in events if one["regarding"]["kind"] == "ModelDeployment"} == EVENTS
    # An ordinary life leaves nothing that anybody would look into.
    lines = [json.loads(line) for program in (controller, xds_server) for line in program.log.splitlines()]
    assert [line for line in lines if line["level"] not in ("debug", "info") or "traceback" in line] == []
    assert {*map(type, lines)} == {dict}
    assert all({"time", "level", "message"} <= line.keys() for line in lines)
    assert envoy.process.last_words() == ""


async def test_a_restart_keeps_what_was_decided(site: Site) -> None:
    """Prior fault 10: all state is in memory."""
    replica, remote = site.backend("local-1"), site.backend("remote")
    slow = site.served("slow", [replica], remote).offloading(recoverAfter="8s", stepInterval="8s")
    held = site.served("held", [replica], remote).overridden("remote=40")
    site.write(slow, held, endpoints("slow", replica, ready=False))
    await site.start()
    await site.until_split("slow", "0/100 LocalDown")
    await site.change(endpoints("slow", replica), held.paused())
    # Half of it is back; the other half comes in its time, not anew after the restart. So it may have, when one looks
    # again.
    recovering = await eventually(
        lambda: site.status("slow"), lambda seen: _said(seen.get("split")) == ("50/50", "Recovering")
    )
    history = recovering["history"]
    await site.until_split("held", "60/40 Paused")
    await site.until_condition("held", "RemoteHealthy", "True")
    held_before = await site.status("held")
    (controller,) = site.controllers
    assert controller.end() == 0
    controller.start()
    await controller.ready()
    await eventually(controller.leads, bool)
    await site.until_split("slow", "100/0 Steady")
    back = (await site.status("slow"))["history"]
    assert [one["reason"] for one in back] == ["Steady", "Recovering", "LocalDown"]
    assert back[1:] == history
    # A split that nobody measures any more is still held, since when it was.
    assert {**await site.status("held"), "conditions": []} == {**held_before, "conditions": []}


def _said(split: dict[str, Any] | None) -> tuple[str, str]:
    return (split["summary"], split["reason"]) if split else ("", "")
