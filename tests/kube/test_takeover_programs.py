"""A Service is taken over by the programs as an operator starts them, with a real Envoy, while requests go on."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from controller.api.kubernetes.fronting import FRONTED_KEY
from tests.support.forked import Forked
from tests.support.kube.cluster import Cluster
from tests.support.kube.elected import timing
from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.namespaces import fresh_namespace
from tests.support.kube.site import Site
from tests.support.kube.taking_over import QUICK
from tests.support.timing import PATIENT
from tests.support.waiting import eventually

CHAT = {"app": "chat"}
SOON = partial(Forked, context=replace(PATIENT, lease=timing(6), takeover=QUICK))
"""Starts a controller whose lease is over soon after it was killed; the other test holds the real times."""


@pytest.fixture
async def fronting_site(endpoint_controllers: Cluster, tmp_path: Path) -> AsyncIterator[Site]:
    """Our programs in a namespace of the cluster where Services have endpoints."""
    with fresh_namespace(endpoint_controllers) as namespace:
        async with Site(endpoint_controllers, namespace, tmp_path).running() as site:
            yield site


@pytest.fixture
def hand(fronting_site: Site, endpoint_controllers: Cluster) -> Iterator[ServiceHand]:
    """The hand of a user in that namespace."""
    with contextlib.closing(ServiceHand(endpoint_controllers, fronting_site.namespace)) as hand:
        yield hand


def prepare(site: Site, hand: ServiceHand) -> None:
    """Write a gateway, and pods that really answer: each at a port of its own, which its container calls `web`."""
    hand.gateways("10.9.0.1")
    for number in (1, 2):
        replica = site.backend(f"local-{number}")
        hand.pod(replica.name, replica.host, labels=CHAT, ports={"web": replica.port})
    hand.service({"selector": CHAT, "ports": [{"name": "http", "port": 80, "targetPort": "web"}]})


async def test_envoy_answers_for_the_pods_while_their_service_is_taken_over_and_given_back(
    fronting_site: Site, hand: ServiceHand
) -> None:
    site = fronting_site
    prepare(site, hand)
    before = hand.written_by_owners()
    hand.model(frontend="Gateway")
    await site.start("--gateway-service", f"{site.namespace}/gateway", controllers=2)
    port = await site.port("chat")
    async with site.no_request_fails(port):
        hand.patch_model({"frontend": "Takeover"})
        await hand.until_fronted("True", "TakenOver")
        await hand.until_ways(f"10.9.0.1:{port}")
        assert hand.selector() == {**CHAT, FRONTED_KEY: "true"}

        async def fronted() -> list[float]:
            return [await one.metric("beamlit_services_fronted") for one in site.controllers]

        # Each of them sees for itself what one of them did.
        await eventually(fronted, lambda seen: seen == [1, 1])
        # A pod that goes, and one that comes, while the Service is narrowed.
        third = site.backend("local-3")
        hand.pod(third.name, third.host, labels=CHAT, ports={"web": third.port})
        await site.until_answered(port, "local-3")
        hand.remove_pod("local-1")
        await eventually(lambda: site.status("chat"), lambda seen: seen["local"]["summary"] == "2/2")
        hand.patch_model({"frontend": "Gateway"})
        await hand.until_restored(before)
        await hand.until_fronted("False", "NotAsked")
        written = [await one.metric("beamlit_service_writes_total") for one in site.controllers]
        assert sum(written) >= 4


async def test_whoever_leads_next_gives_back_what_the_killed_one_took(fronting_site: Site, hand: ServiceHand) -> None:
    site = fronting_site
    prepare(site, hand)
    before = hand.written_by_owners()
    hand.model()
    await site.start("--gateway-service", f"{site.namespace}/gateway", start=SOON)
    port = await site.port("chat")
    await hand.until_fronted("True", "TakenOver")
    # That Kubernetes has taken the pods out of it comes after the word of it.
    await hand.until_ways(f"10.9.0.1:{port}")
    site.controllers[0].kill()
    # Nobody decides: Envoy goes on, and follows the pods.
    hand.remove_pod("local-1")
    site.backends[0].kill()
    await site.until_answered(port, "local-2")
    for _ in range(20):
        reply = await site.ask(port)
        assert (reply.error, reply.server) == ("", "local-2")
    assert hand.ways() == {f"10.9.0.1:{port}"}
    hand.delete_model()
    site.controllers[0].start()
    await hand.until_restored(before)
    await eventually(lambda: asyncio.to_thread(hand.read, "modeldeployments", "chat"), lambda seen: seen is None)
