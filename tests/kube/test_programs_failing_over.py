"""What Envoys report of requests that go elsewhere than the split says reaches the object, and is an event."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Any

from controller.api.timing import ReportTiming
from tests.support.beamlit import eventually
from tests.support.data_plane.backends import reporting_unhealthy
from tests.support.forked import Forked
from tests.support.kube.site import Site, endpoints, model, service
from tests.support.objects import ADeployment, a_deployment
from tests.support.timing import PATIENT

SHORT = replace(PATIENT, reports=ReportTiming(window=3.0))
COUNTED = r"[1-9]\d* of the last [1-9]\d* requests "
"""How an event begins: with how many, which came with the reports of the Envoys."""


async def test_replicas_that_envoy_does_not_believe_are_an_event_and_so_is_a_remote_that_fails(
    site: Site,
) -> None:
    replica, remote = site.backend("local-1"), site.backend("remote")
    probe = {"httpGet": {"path": "/healthz", "port": replica.port}, "periodSeconds": 1, "failureThreshold": 1}
    front = service("chat")
    front.raw["spec"]["ports"][0]["targetPort"] = replica.port
    site.write(front, endpoints("chat", replica), model("chat", remote), _runnable(probe))
    # No controller of Deployments runs here: without its word a rollout may be under way, and no probe is asked.
    site.set_status("Deployment", "chat", {"observedGeneration": 1})
    await site.start(xds_servers=2, start=partial(Forked, context=SHORT))
    port = await site.port("chat")
    await site.until_answered(port, "local-1")

    async def events(*reasons: str) -> list[dict[str, Any]]:
        found = await asyncio.to_thread(site.kubectl, "get", "events.v1.events.k8s.io", "--output=json")
        return [one for one in json.loads(found)["items"] if one["reason"] in reasons]

    async def row() -> set[str]:
        _, row = (await asyncio.to_thread(site.kubectl, "get", "mdep", "chat")).splitlines()
        return {*row.split()}

    with reporting_unhealthy([replica]):
        async with asking(site, port):
            (event, *_) = await eventually(lambda: events("ReplicasNotUsed", "ReplicasFail"), bool, within=60)
            assert event["type"] == "Warning"
            assert re.match(COUNTED, event["note"])
            assert "went to the remote backend at a split of 100/0, though 1 of 1 replicas are ready" in event["note"]
            left, counted = counts_in(event["note"])
            assert (left == counted) if event["reason"] == "ReplicasNotUsed" else (0 < left < counted)
            await site.until_condition("chat", "FailingOver", "True")
            # So nobody sees 100/0 alone: requests leave, and why is what kubectl shows.
            assert counts_in(await site.until_condition("chat", "Offloading", "True", "Failover"))
            assert await site.split("chat") == "100/0 Steady"
            # A pause of the machine longer than the window, and it is not known any more, for a moment.
            await eventually(row, lambda words: {"100/0", "Failover"} <= words)
    # And the other way round. A connection is all that it is checked with: it is healthy.
    await site.change(model("chat", remote).overridden("remote=100"))
    await site.until_split("chat", "0/100 Override")
    remote.behave("status=503")
    async with asking(site, port):
        (event, *_) = await eventually(lambda: events("RemoteNotUsed", "RemoteFails"), bool, within=60)
        assert event["type"] == "Warning"
        assert re.match(COUNTED, event["note"])
        assert "went to the replicas at a split of 0/100: the remote backend fails" in event["note"]
        await site.until_condition("chat", "FailingOver", "True")


def counts_in(message: str) -> tuple[int, int]:
    """How many requests left, and of how many, as a message tells."""
    found = re.search(r"(\d+) of the last (\d+) requests", message)
    assert found, message
    return int(found[1]), int(found[2])


@contextlib.asynccontextmanager
async def asking(site: Site, port: int) -> AsyncIterator[None]:
    """Send one request after the other while the block runs: where none was sent for a window, nothing is known."""

    async def ask() -> None:
        while True:
            await site.ask(port)
            await asyncio.sleep(0.1)

    task = asyncio.create_task(ask())
    try:
        yield
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def _runnable(probe: dict[str, Any]) -> ADeployment:
    """A Deployment that the API server accepts."""
    labels = {"app": "chat"}
    container = {"name": "server", "image": "example.invalid/server", "readinessProbe": probe}
    deployment = a_deployment("chat").container(**container)
    deployment = deployment._with(labels, "spec", "template", "metadata", "labels")
    return deployment._with(labels, "spec", "selector", "matchLabels")
