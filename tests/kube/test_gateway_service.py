"""A Service of its own at the gateway for a model that asks for one: made, kept, and gone with the model.

With the real API server, its endpoint controllers and its garbage collector.
"""

from __future__ import annotations

import asyncio
import re
from typing import Any

from controller.api.contract.route import Route
from controller.observe.proxies import Programmed
from controller.store.objects import ObjectRef
from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.taking_over import taking_over
from tests.support.proxies import AllProgrammed
from tests.support.waiting import eventually, until

CHAT = {"app": "chat"}
ASKED = {"frontend": "Gateway", "gatewayService": {"name": "chat-gw"}}


def prepared(hand: ServiceHand) -> dict[str, Any]:
    """Write two gateways, a pod and its Service; return the Service as its owner has it."""
    hand.gateways("10.9.0.1", "10.9.0.2")
    hand.pod("chat-1", "10.8.0.1", labels=CHAT)
    hand.service({"selector": CHAT, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
    return hand.written_by_owners()


async def until_gone(hand: ServiceHand, *services: str) -> None:
    """Wait until there are no such Services, and nothing of ours."""
    for name in services:
        await eventually(lambda name=name: asyncio.to_thread(hand.read, "services", name), lambda seen: seen is None)
    await eventually(lambda: asyncio.to_thread(hand.traces), lambda seen: seen == [])


async def test_clients_call_a_model_by_a_name_that_it_keeps_and_its_own_service_is_left_alone(
    hand: ServiceHand,
) -> None:
    before = prepared(hand)
    hand.model(**ASKED)
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "GatewayService")
        port = hand.status()["servingPort"]
        await hand.until_ways(f"10.9.0.1:{port}", f"10.9.0.2:{port}", service="chat-gw")
        made = hand.written_by_owners("chat-gw")
        assert (made["spec"]["type"], made["spec"]["ports"][0]["port"]) == ("ClusterIP", 80)
        assert hand.status()["frontend"] == "Gateway"
        assert hand.written_by_owners() == before
        # A gateway that drains, and a port that moves.
        hand.set_ready("gateway-1", ready=False)
        await hand.until_ways(f"10.9.0.1:{port}", service="chat-gw")
        hand.patch_model({"servingPort": 12345})
        await hand.until_ways("10.9.0.1:12345", service="chat-gw")
        # Its owner may make it a load balancer, and may not lead it elsewhere.
        hand.patch_service({"spec": {"type": "LoadBalancer", "selector": CHAT}}, "chat-gw")
        await eventually(lambda: asyncio.to_thread(hand.selector, "chat-gw"), lambda seen: seen == {})

        def ways() -> set[str]:
            # What Kubernetes made of the selector by then, it leaves and mirrors.
            hand.delete_endpoints("chat-gw")
            return hand.ways("chat-gw")

        await eventually(lambda: asyncio.to_thread(ways), lambda seen: seen == {"10.9.0.1:12345"})
        assert hand.written_by_owners("chat-gw")["spec"]["type"] == "LoadBalancer"
        # The same name, by another object: it has the port that it fixes, and so its clients.
        address = hand.written_by_owners("chat-gw")["metadata"]["uid"]
        hand.delete_model()
        hand.model(**ASKED, servingPort=12345)
        await eventually(
            lambda: asyncio.to_thread(hand.read, "services", "chat-gw"),
            lambda seen: seen is not None and seen["metadata"]["uid"] != address,
        )
        await hand.until_ways("10.9.0.1:12345", service="chat-gw")
        await hand.until_fronted("True", "GatewayService")
        assert hand.written_by_owners() == before


async def led_to_gateways(hand: ServiceHand) -> set[str]:
    """Wait until clients of the model's Service are led to the gateways; return where that is."""
    await hand.until_fronted("True", "GatewayService")
    return await asyncio.to_thread(hand.ways, "chat-gw")


async def test_a_name_that_is_taken_is_told_and_left_alone_until_it_is_free(hand: ServiceHand) -> None:
    prepared(hand)
    hand.service({"selector": CHAT, "ports": [{"port": 8000}]}, "chat-gw")
    theirs = hand.written_by_owners("chat-gw")
    hand.model(**ASKED)
    async with taking_over(hand.server.kubeconfig, hand.namespace) as running:
        words = await hand.until_fronted("False", "NameTaken")
        assert "Service" in words
        assert "give spec.gatewayService another name" in words

        def is_told() -> bool:
            return ("Warning", "NameTaken") in [(one.type, one.reason) for one in running.events]

        await until(is_told, "an event says so")  # after the status, which says it first
        hand.patch_model({"environment": "staging"})
        await hand.until_fronted("False", "NameTaken")
        assert hand.written_by_owners("chat-gw") == theirs
        # Its own Service is taken, too.
        hand.patch_model({"gatewayService": {"name": "chat"}})
        await hand.until_fronted("False", "NameTaken")
        hand.patch_model({"gatewayService": {"name": "chat-gw"}})
        hand.delete_service("chat-gw")

        def fronted() -> tuple[str, str, str]:
            # A Service that is gone and there again within a moment is the same one to who writes Endpoints.
            hand.delete_endpoints("chat-gw")
            return hand.fronted()

        await eventually(lambda: asyncio.to_thread(fronted), lambda seen: seen[:2] == ("True", "GatewayService"))


async def test_what_kubernetes_mirrors_of_a_selector_that_was_there_is_told_until_somebody_takes_it_away(
    hand: ServiceHand,
) -> None:
    """It leaves what it made of a selector when that goes, and from then on mirrors the Endpoints of it."""
    prepared(hand)
    hand.model(**ASKED)
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        gateways = await led_to_gateways(hand)
    hand.patch_service(
        {"spec": {"selector": CHAT, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}, "chat-gw"
    )
    await eventually(
        lambda: asyncio.to_thread(hand.read, "endpoints", "chat-gw"), lambda seen: bool(seen and seen.get("subsets"))
    )
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        words = await hand.until_fronted("False", "OtherEndpoints")
        await hand.until_ways(*gateways, "10.8.0.1:8080", service="chat-gw")
        (command,) = re.findall("`kubectl (.*?)`", words)
        assert command == f"-n {hand.namespace} delete endpoints chat-gw"
        await asyncio.to_thread(hand.server.kubectl, *command.split())
        await hand.until_fronted("True", "GatewayService")
        await hand.until_ways(*gateways, service="chat-gw")


async def test_one_that_became_another_name_of_a_host_is_told_and_made_again_when_it_is_gone(
    hand: ServiceHand,
) -> None:
    prepared(hand)
    hand.model(**ASKED)
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        gateways = await led_to_gateways(hand)
        without = dict.fromkeys(("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"))
        external = {"spec": {"type": "ExternalName", "externalName": "example.com", **without}}
        hand.patch_service(external, "chat-gw")
        words = await hand.until_fronted("False", "NotFrontable")
        assert "ExternalName" in words
        assert f"`kubectl -n {hand.namespace} delete service chat-gw`" in words
        hand.patch_service({"spec": {"type": "ClusterIP", "externalName": None}}, "chat-gw")
        await hand.until_fronted("True", "GatewayService")
        await hand.until_ways(*gateways, service="chat-gw")
        hand.patch_service(external, "chat-gw")
        await hand.until_fronted("False", "NotFrontable")
        hand.delete_service("chat-gw")
        await hand.until_fronted("True", "GatewayService")
        await hand.until_ways(*gateways, service="chat-gw")


async def test_it_goes_with_the_name_the_wish_and_the_model(hand: ServiceHand) -> None:
    before = prepared(hand)
    hand.model(**ASKED)
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "GatewayService")
        hand.patch_model({"gatewayService": {"name": "other"}})
        await hand.until_fronted("True", "GatewayService")
        await until_gone_but(hand, "chat-gw", left="other")
        # One that asks for a takeover instead: the name goes, and the Service leads to the gateway.
        hand.patch_model({"frontend": "Takeover", "gatewayService": None})
        await hand.until_fronted("True", "TakenOver")
        await eventually(lambda: asyncio.to_thread(hand.read, "services", "other"), lambda seen: seen is None)
        hand.patch_model(ASKED)
        await hand.until_fronted("True", "GatewayService")
        await hand.until_restored(before)
    # Nobody is there: garbage collection does it.
    hand.delete_model()
    await until_gone(hand, "chat-gw")
    assert hand.written_by_owners() == before


async def test_a_service_with_pods_is_taken_over_though_it_goes_with_its_model(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model()
    model = hand.read("modeldeployments", "chat")
    assert model
    owner = {name: model[name] for name in ("apiVersion", "kind")} | {"name": "chat", "uid": model["metadata"]["uid"]}
    hand.patch_service({"metadata": {"ownerReferences": [{**owner, "controller": True}]}})
    before = hand.written_by_owners()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        await hand.until_noted()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        hand.patch_model({"frontend": "Gateway"})
        await hand.until_restored(before)
        # One that was made for a model leads to the gateway, and no model can stand in front of it.
        hand.patch_model({"gatewayService": {"name": "chat-gw"}})
        await hand.until_fronted("True", "GatewayService")
        hand.model("other", "chat-gw")
        await hand.until_fronted("False", "NotServed", name="other")
        told = {one["type"]: one for one in hand.status("other")["conditions"]}["ResolvedRefs"]
        assert (told["reason"], "spec.serviceRef: " in told["message"]) == ("LoopDetected", True)
        await hand.until_fronted("True", "GatewayService")


async def until_gone_but(hand: ServiceHand, gone: str, left: str) -> None:
    """Wait until one of two Services is gone with its slices."""
    await eventually(lambda: asyncio.to_thread(hand.read, "services", gone), lambda seen: seen is None)
    await eventually(
        lambda: asyncio.to_thread(hand.traces), lambda seen: bool(seen) and all(one.startswith(left) for one in seen)
    )


class Standing(AllProgrammed):
    """An Envoy that acknowledges nothing of what is `late`: ports of the gateway."""

    def __init__(self) -> None:
        self.late: set[int] = set()

    def report(self, model: ObjectRef, route: Route) -> Programmed | None:
        return Programmed(connected=1, programmed=0 if route.port in self.late else 1)


async def test_a_port_is_given_next_door_once_no_client_is_led_there(hand: ServiceHand, away: ServiceHand) -> None:
    """A model moves to another port, and is deleted; each time one of another namespace waits for its port."""
    prepared(hand)
    away.service({"selector": CHAT, "ports": [{"port": 80}]})

    def next_door(name: str) -> tuple[int | None, str]:
        status = away.status(name)
        said = {one["type"]: one["message"] for one in status.get("conditions", ())}
        return status.get("servingPort"), said.get("Accepted", "")

    async def waits(name: str, *, for_port: int) -> None:
        words = (
            f"spec.servingPort: port {for_port} becomes free once no Service of namespace {hand.namespace} leads its "
            "clients there any more"
        )
        await eventually(lambda: asyncio.to_thread(next_door, name), lambda seen: seen == (None, words))

    async def gets(name: str, port: int) -> None:
        await eventually(lambda: asyncio.to_thread(next_door, name), lambda seen: seen[0] == port)
        # Nobody is led there, nor was when it was given.
        assert not any(way.endswith(f":{port}") for way in hand.ways("chat-gw"))

    envoys, where = Standing(), (hand.server.kubeconfig, hand.namespace)
    hand.model(**ASKED, servingPort=10000)
    async with taking_over(*where, namespaces=(away.namespace,), proxies=envoys):
        await hand.until_ways("10.9.0.1:10000", "10.9.0.2:10000", service="chat-gw")
        away.model("first", servingPort=10000, frontend="Gateway")
        envoys.late = {10005}
        hand.patch_model({"servingPort": 10005})
        await waits("first", for_port=10000)
        assert hand.status()["servingPort"] == 10005
        assert hand.ways("chat-gw") == {"10.9.0.1:10000", "10.9.0.2:10000"}
    # Another controller, which knows only what there is.
    away.patch_model({"environment": "anew"}, "first")
    async with taking_over(*where, namespaces=(away.namespace,), proxies=envoys):
        generation = away.read("modeldeployments", "first")["metadata"]["generation"]
        await eventually(
            lambda: asyncio.to_thread(away.status, "first"), lambda seen: seen["observedGeneration"] == generation
        )
        await waits("first", for_port=10000)
        envoys.late = set()
        hand.patch_model({"environment": "anew"})
        await gets("first", 10000)
        away.service({"selector": CHAT, "ports": [{"port": 80}]}, "other")
        away.model("second", "other", servingPort=10005, frontend="Gateway")
        await eventually(lambda: asyncio.to_thread(next_door, "second"), lambda seen: "is already that of" in seen[1])
        hand.delete_model()
        await gets("second", 10005)


async def test_without_the_right_the_condition_says_which(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model(**ASKED)
    user = hand.server.user(hand.namespace, "controller", *hand.rules("beamlit-controller"))
    async with taking_over(user.kubeconfig, hand.namespace):
        words = await hand.until_fronted("False", "NotPermitted")
        assert f"may not create services {hand.namespace}/chat-gw: bind the ClusterRole" in words
        assert "or take spec.gatewayService away" in words
