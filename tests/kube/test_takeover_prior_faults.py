"""The faults of the system before in taking over a Service, by their numbers: each of them is not here."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.taking_over import taking_over
from tests.support.waiting import eventually

CHAT, OTHER = {"app": "chat"}, {"app": "other"}
PORTS = [{"name": "http", "port": 80, "targetPort": "web"}]


def prepare(hand: ServiceHand) -> None:
    """Write a gateway, and two Services whose pods call their ports `web`, each another number."""
    hand.gateways("10.9.0.1")
    for number in (1, 2):
        hand.pod(f"chat-{number}", f"10.8.0.{number}", labels=CHAT, ports={"web": 8080 + number})
    hand.pod("other-1", "10.8.1.1", labels=OTHER, ports={"web": 8080})
    hand.service({"selector": CHAT, "ports": PORTS})
    hand.service({"selector": OTHER, "ports": PORTS}, "other")


def foreign_slice(hand: ServiceHand) -> dict[str, Any]:
    """Write a slice of somebody else's for the Service; return it as it is."""
    path = f"/apis/discovery.k8s.io/v1/namespaces/{hand.namespace}/endpointslices"
    labels = {"kubernetes.io/service-name": "chat", "endpointslice.kubernetes.io/managed-by": "somebody"}
    raw = {
        "metadata": {"name": "chat-of-somebody", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.8.9.9"]}],
        "ports": [{"name": "http", "port": 8080}],
    }
    with hand.server.client() as client:
        written: dict[str, Any] = client.post(path, content=json.dumps(raw)).raise_for_status().json()
    return written


async def test_prior_fault_17_several_models_are_taken_over_and_no_external_ip_is_set(hand: ServiceHand) -> None:
    prepare(hand)
    hand.model()
    hand.model("other", "other")
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        for name in ("chat", "other"):
            await hand.until_fronted("True", "TakenOver", name=name)
            await hand.until_ways(f"10.9.0.1:{hand.status(name)['servingPort']}", service=name)
            assert "externalIPs" not in hand.written_by_owners(name)["spec"]
        assert hand.status("chat")["servingPort"] != hand.status("other")["servingPort"]


async def test_prior_fault_18_slices_of_others_stay_and_a_restart_forgets_nothing(hand: ServiceHand) -> None:
    prepare(hand)
    before, others = hand.written_by_owners(), foreign_slice(hand)
    # Pods with different numbers for one port stand in several slices.
    await eventually(lambda: asyncio.to_thread(hand.slices), lambda seen: len(seen) == 3)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        await hand.until_ways(f"10.9.0.1:{hand.status()['servingPort']}", "10.8.9.9:8080")
    hand.delete_model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_restored(before)
    await hand.until_ways("10.8.0.1:8081", "10.8.0.2:8082", "10.8.9.9:8080")
    (now,) = [one for one in hand.slices() if one["metadata"]["name"] == "chat-of-somebody"]
    assert now["metadata"]["resourceVersion"] == others["metadata"]["resourceVersion"]


async def test_prior_fault_19_a_named_target_port_leads_to_each_pods_own_number(hand: ServiceHand) -> None:
    prepare(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        await hand.until_ways("10.8.0.1:8081", "10.8.0.2:8082", service="chat-beamlit")
        await eventually(lambda: asyncio.to_thread(hand.status), lambda seen: seen["local"]["summary"] == "2/2")


async def test_prior_fault_11_an_edit_of_the_spec_tears_nothing_down(hand: ServiceHand) -> None:
    prepare(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace) as running:
        await hand.until_fronted("True", "TakenOver")
        await hand.until_noted()
        await running.killing.at_rest()
        written = list(running.killing.writes)
        behavior = {"percentage": 30, "maxRequestsPerReplica": 4}
        hand.patch_model({"offloadingConfig": {"behavior": behavior, "remoteBackend": {"host": "remote.example:443"}}})
        await eventually(
            lambda: asyncio.to_thread(hand.status),
            lambda seen: seen["route"]["local"].get("maxRequestsPerReplica") == 4,
        )
        await hand.until_fronted("True", "TakenOver")
        assert running.killing.writes == written
