"""What was thought of to break a takeover: owners, neighbours and other replicas that do what nobody expects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from controller.api.kubernetes.fronting import FINALIZER, FRONTED_KEY, SHADOW_OF
from tests.support.kube.endpoint_controllers import GATEWAY, ServiceHand
from tests.support.kube.taking_over import QUICK, Killing, taking_over
from tests.support.proxies import AllProgrammed
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


async def gone(hand: ServiceHand) -> None:
    """Wait until the model and every trace of it are gone."""
    await eventually(lambda: asyncio.to_thread(hand.read, "modeldeployments", "chat"), lambda seen: seen is None)
    await eventually(lambda: asyncio.to_thread(hand.traces), lambda seen: seen == [])


async def test_a_service_and_then_its_model_are_deleted_while_the_pods_go_on(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        hand.delete_service()
        hand.delete_model()
        await gone(hand)


async def test_a_model_and_then_its_service_are_deleted_while_the_pods_go_on(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        hand.delete_model()
        hand.delete_service()
        await gone(hand)


async def test_a_service_becomes_another_name_of_a_host_and_its_model_is_deleted(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        external = {"type": "ExternalName", "externalName": "example.com", "clusterIP": None, "clusterIPs": None}
        hand.patch_service({"spec": {**external, "ipFamilies": None, "ipFamilyPolicy": None}})
        await hand.until_fronted("False", "NotFrontable")
        hand.delete_model()
        await gone(hand)


async def test_a_service_is_made_again_with_an_address_of_the_other_family(hand: ServiceHand) -> None:
    prepared(hand, ipFamilies=["IPv4"])
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        hand.delete_service()
        hand.service({**HTTP, "ipFamilies": ["IPv6"]})
        before = hand.written_by_owners()
        await hand.until_fronted("True", "TakenOver")
        port = hand.status()["servingPort"]
        await hand.until_ways(f"fd00:9::1:{port}", f"fd00:9::2:{port}")
        hand.delete_model()
        await hand.until_restored(before)
        await gone(hand)


async def test_replicas_that_do_not_agree_on_the_gateway_are_nobody_who_contests(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model()
    config, namespace = hand.server.kubeconfig, hand.namespace
    # From anybody else it would be taken once.
    timing = replace(QUICK, resets_tolerated=1)
    async with taking_over(config, namespace, timing=timing):
        # Before the last write of the way in, nothing says that a replica of ours turned it.
        await hand.until_noted()
        async with taking_over(config, namespace, leads=False, gateway="other", timing=timing) as other:
            seen = set()

            async def turned_it_again() -> bool:
                seen.add((await asyncio.to_thread(hand.fronted))[1])
                return "TakeoverContested" in seen or other.killing.writes.count("patch Service") >= 3

            await until(turned_it_again, "the other one turns it, and again when it was turned back")
            assert "TakeoverContested" not in seen
        # The other one may have turned it right before it ended; who leads has the last word.
        await eventually(lambda: asyncio.to_thread(hand.selector), {**CHAT, FRONTED_KEY: "true"}.__eq__)


async def test_a_service_is_deleted_alone_and_comes_back(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        hand.delete_service()
        await eventually(lambda: asyncio.to_thread(hand.traces), lambda seen: seen == [])
        hand.service(HTTP)
        before = hand.written_by_owners()
        await hand.until_fronted("True", "TakenOver")
        hand.delete_model()
        await hand.until_restored(before)
        await gone(hand)


async def test_a_quota_that_leaves_no_room_for_the_shadow_is_named(hand: ServiceHand) -> None:
    before = prepared(hand)
    hand.quota(services=2)
    hand.until_no_more_services()
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        words = await hand.until_fronted("False", "NotPermitted")
        assert "exceeded quota" in words
        assert "beamlit-controller-takeover" not in words
        assert hand.written_by_owners() == before


async def test_a_shadow_with_the_label_of_another_class_lets_the_model_go(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        hand.patch_service({"metadata": {"labels": {"beamlit.com/controller-class": "other"}}}, "chat-beamlit")
        await hand.until_fronted("True", "OtherController")
        hand.delete_model()
        await eventually(lambda: asyncio.to_thread(hand.read, "modeldeployments", "chat"), lambda seen: seen is None)


async def test_what_has_the_label_of_a_shadow_and_is_none_is_left_alone(hand: ServiceHand) -> None:
    before = prepared(hand)
    hand.service({"type": "ExternalName", "externalName": "example.com"}, "chat-beamlit")
    hand.patch_service({"metadata": {"labels": {SHADOW_OF: "chat"}}}, "chat-beamlit")
    theirs = hand.written_by_owners("chat-beamlit")
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        words = await hand.until_fronted("False", "NameTaken")
        assert "rename it" in words
        hand.delete_model()
        await eventually(lambda: asyncio.to_thread(hand.read, "modeldeployments", "chat"), lambda seen: seen is None)
        assert hand.written_by_owners() == before
        assert hand.written_by_owners("chat-beamlit") == theirs


async def test_a_gateway_that_gets_no_configuration_is_waited_for(hand: ServiceHand) -> None:
    before = prepared(hand)
    # For one gateway the one Envoy that is connected would be enough.
    await hand.until_gateways("10.9.0.1", "10.9.0.2", "fd00:9::1", "fd00:9::2")
    hand.model()
    proxies = AllProgrammed()
    proxies.connected = 1
    async with taking_over(hand.server.kubeconfig, hand.namespace, proxies=proxies):
        words = await hand.until_fronted("False", "GatewayNotConnected")
        assert "2 gateways are ready, and 1 Envoys are connected" in words
        assert hand.written_by_owners() == before
        assert hand.traces() == []
        # As many are connected, and one of them is another one.
        proxies.connected, proxies.known_as = 2, frozenset(("10.9.0.1", "gateway-that-drains"))
        hand.patch_model({"environment": "staging"})
        told = "of 2 gateways that are ready the xDS servers do not have gateway-1: "
        await eventually(lambda: asyncio.to_thread(hand.fronted, "chat"), lambda seen: seen[2].startswith(told))
        assert hand.traces() == []
        proxies.known_as = frozenset(("10.9.0.1", "10.9.0.2"))
        hand.patch_model({"environment": "other"})
        await hand.until_fronted("True", "TakenOver")
        # A control plane that restarts takes nothing back.
        proxies.connected = 0
        hand.patch_model({"environment": "production"})
        await hand.until_fronted("True", "TakenOver")


SPEAKS_TLS = {
    "appProtocol": ({"name": "http", "port": 80, "appProtocol": "https"}, "has the appProtocol https"),
    "another protocol": ({"name": "http", "port": 80, "appProtocol": "mongo"}, "has the appProtocol mongo"),
    "name": ({"name": "https-web", "port": 8443}, "has the name of one that speaks TLS"),
    "number": ({"port": 443}, "is the port of HTTPS"),
}


@pytest.mark.parametrize("case", SPEAKS_TLS)
async def test_a_port_whose_clients_speak_tls_is_left_alone_until_its_owner_says_otherwise(
    hand: ServiceHand, case: str
) -> None:
    port, words = SPEAKS_TLS[case]
    before = prepared(hand, ports=[port])
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        assert words in await hand.until_fronted("False", "NotFrontable")
        assert hand.written_by_owners() == before
        assert hand.traces() == []
        hand.patch_service({"spec": {"ports": [{**port, "appProtocol": "http"}]}})
        await hand.until_fronted("True", "TakenOver")


async def test_a_port_of_tls_beside_the_one_that_is_fronted_leads_to_the_pods(hand: ServiceHand) -> None:
    before = prepared(hand, ports=[*HTTP["ports"], {"name": "https", "port": 443, "targetPort": 8443}])
    hand.model(port=80)
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        await hand.until_ways("10.8.0.1:8443", "10.8.0.2:8443", port="https")
        hand.delete_model()
        await hand.until_restored(before)


async def test_a_namespace_on_its_way_out_takes_our_rights_there_and_keeps_no_finalizer(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model()
    user = hand.server.user(
        hand.namespace, "controller", *hand.rules("beamlit-controller", "beamlit-controller-takeover")
    )
    async with taking_over(user.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
    # Nobody leads for a moment, and to give a Service back takes its time.
    slow = replace(QUICK, kube_proxy_within=600.0)
    async with taking_over(user.kubeconfig, hand.namespace, timing=slow, leads=False):
        # The namespace controller goes through the kinds: Services come before rights, and those before models.
        for name in ("chat", "chat-beamlit", GATEWAY):
            hand.delete_service(name)
        finalizers = await eventually(lambda: asyncio.to_thread(hand.finalizers), lambda seen: FINALIZER not in seen)
        assert finalizers == []
        hand.server.user(hand.namespace, "controller")
        hand.delete_model()
        assert hand.read("modeldeployments", "chat") is None


@dataclass
class Holding(Killing):
    """Kills nobody, and holds up the first change of a slice once it is told to."""

    holds: bool = False
    held: asyncio.Event = field(default_factory=asyncio.Event)
    go: asyncio.Event = field(default_factory=asyncio.Event)

    async def write(self, what: str, writing: Awaitable[Any]) -> Any:
        if self.holds and not self.held.is_set() and what == "patch EndpointSlice":
            self.held.set()
            await self.go.wait()
        return await super().write(what, writing)


async def test_what_was_planned_with_a_gateway_does_not_go_before_what_gives_clients_their_pods(
    hand: ServiceHand,
) -> None:
    hand.gateways("10.9.0.1", "10.9.0.2")
    names = ("chat-1", "chat-2", "chat-3")
    for number, name in enumerate(names, start=1):
        hand.pod(name, f"10.8.0.{number}", labels={"app": name})
        hand.service({**HTTP, "selector": {"app": name}}, name)
        hand.model(name, name)
    holding = Holding()
    # A slow API server: one write at a time.
    async with taking_over(hand.server.kubeconfig, hand.namespace, holding, timing=replace(QUICK, at_once=1)):
        for name in names:
            await hand.until_fronted("True", "TakenOver", name=name)
        # The last writes of the way in come after the word of it, those of the last name not necessarily at the end.
        for name in names:
            await hand.until_noted(name)
        await holding.at_rest()
        holding.holds, done = True, len(holding.writes)
        hand.set_ready("gateway-0", ready=False)
        await holding.held.wait()
        hand.set_ready("gateway-1", ready=False)
        for name in names:
            await hand.until_fronted("False", "GatewayNotReady", name=name)
        holding.go.set()
        for name in names:
            await eventually(lambda name=name: asyncio.to_thread(hand.selector, name), {"app": name}.__eq__)
        written = holding.writes[done:]
        first = written.index("patch Service")
        assert written[:first] == ["patch EndpointSlice"]
