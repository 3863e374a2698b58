"""Every kind of Service that can be taken over, by the real endpoint controllers; and what is refused, and why."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from controller.api.kubernetes.fronting import FINALIZER, FRONTED_KEY
from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.taking_over import taking_over
from tests.support.waiting import eventually, until

CHAT = {"app": "chat"}
HTTP: dict[str, Any] = {"selector": CHAT, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}


def prepared(hand: ServiceHand, **spec: Any) -> dict[str, Any]:
    """Write gateways, two pods and their Service; return the Service as its owner has it."""
    hand.gateways("10.9.0.1,fd00:9::1", "10.9.0.2,fd00:9::2")
    hand.pod("chat-1", "10.8.0.1", "fd00:8::1", labels=CHAT)
    hand.pod("chat-2", "10.8.0.2", "fd00:8::2", labels=CHAT)
    hand.service({**HTTP, **spec})
    return hand.written_by_owners()


async def taken_and_given_back(hand: ServiceHand, before: dict[str, Any]) -> None:
    """A Service is taken over, and is what it was once its model is gone."""
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        assert hand.selector() == {**CHAT, FRONTED_KEY: "true"}
        await hand.until_released()
        after = hand.written_by_owners()
        after["spec"]["selector"] = CHAT
        assert after == before
        hand.delete_model()
        await hand.until_restored(before)
        await eventually(lambda: asyncio.to_thread(hand.read, "modeldeployments", "chat"), lambda seen: seen is None)


async def test_a_service_leads_to_every_gateway_and_the_gateway_to_every_pod(hand: ServiceHand) -> None:
    before = prepared(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace) as running:
        await hand.until_fronted("True", "TakenOver")
        port = hand.status()["servingPort"]
        await hand.until_ways(f"10.9.0.1:{port}", f"10.9.0.2:{port}")
        local = hand.status()["route"]["local"]
        assert (local["service"], local["fronted"]) == ("chat-beamlit", "chat")
        # How many pods there are may be told a write later than who leads to them.
        both = {"ready": 2, "total": 2, "summary": "2/2"}
        await eventually(lambda: asyncio.to_thread(hand.status), lambda seen: seen["local"] == both)
        assert hand.status()["frontend"] == "Takeover"
        model = hand.read("modeldeployments", "chat")
        assert model
        assert FINALIZER in model["metadata"]["finalizers"]
        # Who becomes ready, or goes, does so there.
        hand.pod("chat-3", "10.8.0.3", labels=CHAT)
        hand.set_ready("chat-1", ready=False)
        await eventually(lambda: asyncio.to_thread(hand.status), lambda seen: seen["local"]["summary"] == "2/3")
        hand.set_ready("gateway-1", ready=False)
        await hand.until_ways(f"10.9.0.1:{port}")
        assert [one.reason for one in running.events if one.reason in ("TakenOver", "Ready")] == ["Ready", "TakenOver"]
        hand.patch_model({"enabled": False})
        await hand.until_restored(before)
        await hand.until_fronted("False", "Disabled")
        await hand.until_ways("10.8.0.2:8080", "10.8.0.3:8080")
        # The last step of the way out is about the model, and beside the one that takes the shadow away.
        await eventually(lambda: asyncio.to_thread(hand.finalizers), lambda seen: FINALIZER not in seen)
        assert hand.read("modeldeployments", "chat")
        assert "fronted" not in hand.status()["route"]["local"]
        hand.patch_model({"enabled": True})
        await hand.until_fronted("True", "TakenOver")
        # Clients find the model where they found it before.
        assert hand.status()["servingPort"] == port
        hand.patch_model({"frontend": "Gateway"})
        await hand.until_restored(before)
        await hand.until_fronted("False", "NotAsked")


async def test_a_model_is_on_another_port_only_once_nobody_is_led_to_the_one_before(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace) as running:
        await hand.until_fronted("True", "TakenOver")
        before = hand.status()["route"]["port"]
        # What follows is the first write after the way in, whose last ones may come after the word of it.
        await hand.until_noted()
        await running.killing.at_rest()
        # It dies as it is about to lead the clients back: until then the gateway has to answer them.
        running.killing.before = len(running.killing.writes) + 1
        hand.patch_model({"servingPort": 12345})
        await until(running.killing.dead.is_set, "it dies")
        assert hand.status()["route"]["port"] == before
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_ways("10.9.0.1:12345", "10.9.0.2:12345")
        await hand.until_fronted("True", "TakenOver")
        assert hand.status()["servingPort"] == 12345


LIKE_ANY_OTHER = {
    "named target port": {"ports": [{"name": "http", "port": 80, "targetPort": "web"}]},
    "unnamed port": {"ports": [{"port": 80, "targetPort": 8080}]},
    "session affinity": {"sessionAffinity": "ClientIP"},
    "NodePort": {"type": "NodePort"},
    "LoadBalancer": {"type": "LoadBalancer"},
    "external traffic stays local": {"type": "LoadBalancer", "externalTrafficPolicy": "Local"},
    "internal traffic stays local": {"internalTrafficPolicy": "Local"},
    "not ready addresses are published": {"publishNotReadyAddresses": True},
    "dual stack": {"ipFamilyPolicy": "RequireDualStack"},
    "IPv6 alone": {"ipFamilyPolicy": "SingleStack", "ipFamilies": ["IPv6"]},
    "traffic prefers its zone": {"trafficDistribution": "PreferClose"},
}


@pytest.mark.parametrize("case", LIKE_ANY_OTHER)
async def test_a_service_is_taken_over_and_is_what_it_was_afterwards(hand: ServiceHand, case: str) -> None:
    hand.gateways("10.9.0.1,fd00:9::1", "10.9.0.2,fd00:9::2")
    for number in (1, 2):
        # Each of them calls its port 8080 `web`, or 8081.
        hand.pod(f"chat-{number}", f"10.8.0.{number}", f"fd00:8::{number}", labels=CHAT, ports={"web": 8079 + number})
    hand.service({**HTTP, **LIKE_ANY_OTHER[case]})
    hand.model()
    await taken_and_given_back(hand, hand.written_by_owners())


async def test_both_families_lead_to_the_gateway(hand: ServiceHand) -> None:
    prepared(hand, ipFamilyPolicy="RequireDualStack")
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        port = hand.status()["servingPort"]
        gateways = ("10.9.0.1", "10.9.0.2", "fd00:9::1", "fd00:9::2")
        await hand.until_ways(*(f"{one}:{port}" for one in gateways))


async def test_other_ports_lead_to_the_pods_also_when_these_change(hand: ServiceHand) -> None:
    ports = [*HTTP["ports"], {"name": "admin", "port": 81, "targetPort": 9000}]
    before = prepared(hand, ports=ports)
    hand.model(port=80)
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        words = await hand.until_fronted("True", "TakenOver")
        assert "other ports lead to the pods: admin" in words
        await hand.until_ways("10.8.0.1:9000", "10.8.0.2:9000", port="admin")
        hand.set_ready("chat-1", ready=False)
        await hand.until_ways("10.8.0.2:9000", port="admin")
        hand.model("admin", port=81)
        await hand.until_fronted("True", "TakenOver", name="admin")
        admin = hand.status("admin")["servingPort"]
        await hand.until_ways(f"10.9.0.1:{admin}", f"10.9.0.2:{admin}", port="admin")
        hand.delete_model("admin")
        await hand.until_ways("10.8.0.2:9000", port="admin")
        await eventually(lambda: asyncio.to_thread(hand.read, "modeldeployments", "admin"), lambda seen: seen is None)
        assert hand.fronted()[:2] == ("True", "TakenOver")
        hand.delete_model()
        await hand.until_restored(before)


async def test_zones_of_gateways_are_hinted_at_where_the_service_asks_for_its_own(hand: ServiceHand) -> None:
    prepared(hand, trafficDistribution="PreferClose")
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        port = hand.status()["servingPort"]
        await hand.until_ways(f"10.9.0.1:{port}", f"10.9.0.2:{port}")
        ours = [one for one in hand.slices() if "-beamlit-" in one["metadata"]["name"]]
        hints = [endpoint["hints"] for one in ours for endpoint in one["endpoints"]]
        assert hints == [{"forZones": [{"name": "zone-1"}]}] * 2
        assert all("ownerReferences" not in one["metadata"] for one in ours)


async def test_traffic_that_stays_on_its_node_needs_a_gateway_there(hand: ServiceHand) -> None:
    before = prepared(hand, internalTrafficPolicy="Local")
    hand.pod("chat-3", "10.8.0.3", labels=CHAT, node="node-2")
    # Without one of the pods, or of the gateways, there would be something else to say first, or to do.
    await hand.until_ways("10.8.0.1:8080", "10.8.0.2:8080", "10.8.0.3:8080")
    await hand.until_gateways("10.9.0.1", "10.9.0.2", "fd00:9::1", "fd00:9::2")
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        words = await hand.until_fronted("False", "GatewayNotReady")
        assert "internalTrafficPolicy: Local" in words
        assert "node-2" in words
        assert hand.written_by_owners() == before
        assert hand.traces() == []
        hand.pod("gateway-9", "10.9.0.9", "fd00:9::9", labels={"app": "gateway"}, node="node-2")
        await hand.until_fronted("True", "TakenOver")
        hand.pod("chat-4", "10.8.0.4", labels=CHAT, node="node-3")
        assert "node-3" in await hand.until_fronted("False", "GatewayNotReady")
        await hand.until_ways(
            *(f"10.8.0.{number}:8080" for number in (1, 2, 3, 4)),
            *(f"10.9.0.{number}:{hand.status()['servingPort']}" for number in (1, 2, 9)),
        )
