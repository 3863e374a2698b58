"""When a Service is not taken over: what is refused and why, consent, rights, and gateways that come and go."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.proxy import Proxy
from tests.support.kube.request import Request
from tests.support.kube.taking_over import QUICK, taking_over
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


REFUSED = {
    "headless": ({"clusterIP": "None"}, "is headless"),
    "ExternalName": ({"type": "ExternalName", "externalName": "example.com", "selector": None}, "ExternalName"),
    "UDP": ({"ports": [*HTTP["ports"], {"name": "dns", "port": 53, "protocol": "UDP"}]}, "not TCP (53)"),
    "without a selector": ({"selector": None}, "has no selector"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_cannot_be_taken_over_is_left_alone_and_says_what_to_do(hand: ServiceHand, case: str) -> None:
    spec, words = REFUSED[case]
    before = prepared(hand, **spec)
    hand.model(port=80)
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        said = await hand.until_fronted("False", "NotFrontable")
        assert words in said
        assert "frontend: Gateway" in said
        assert hand.written_by_owners() == before
        assert hand.traces() == []


async def test_a_service_of_another_namespace_is_taken_over_with_its_consent_alone(
    hand: ServiceHand, away: ServiceHand
) -> None:
    hand.gateways("10.9.0.1")
    away.pod("chat-1", "10.8.0.1", labels=CHAT)
    away.service(HTTP)
    before = away.written_by_owners()
    hand.model(serviceRef={"name": "chat", "namespace": away.namespace})
    async with taking_over(hand.server.kubeconfig, hand.namespace, namespaces=(away.namespace,)):
        await hand.until_fronted("False", "NotServed")
        # Nor by who may write a status.
        forged = {"takeover": {"namespace": away.namespace, "service": "chat", "portName": "http"}}
        hand.patch_status(forged)
        await hand.until_fronted("False", "NotServed")
        assert away.written_by_owners() == before
        consent = f"allow-from.beamlit.com/{hand.namespace}"
        # To be referred to is one thing, and to have one's own clients led elsewhere another.
        away.patch_service({"metadata": {"annotations": {consent: "true"}}})
        words = await hand.until_fronted("False", "TakeoverNotPermitted")
        assert f"`kubectl -n {away.namespace} annotate service chat --overwrite {consent}=takeover`" in words
        hand.patch_status(forged)
        await hand.until_fronted("False", "TakeoverNotPermitted")
        assert hand.status()["route"]["local"]["namespace"] == away.namespace
        assert away.selector() == before["spec"]["selector"]
        away.patch_service({"metadata": {"annotations": {consent: "takeover"}}})
        await hand.until_fronted("True", "TakenOver")
        await away.until_ways(f"10.9.0.1:{hand.status()['servingPort']}")
        away.patch_service({"metadata": {"annotations": {consent: None}}})
        await away.until_restored({**before, "metadata": {**before["metadata"]}})


async def test_without_a_gateway_that_is_named_clients_call_the_gateways_port(hand: ServiceHand) -> None:
    before = prepared(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace, gateway=None):
        words = await hand.until_fronted("False", "NoGateway")
        assert "--gateway-service" in words
        assert hand.status()["frontend"] == "Gateway"
        assert hand.written_by_owners() == before


NEEDED = (
    ("patch", "deployment.beamlit.com", "modeldeployments"),
    ("create", "", "services"),
    ("create", "discovery.k8s.io", "endpointslices"),
    ("patch", "", "services"),
)
"""The rights of a takeover, in the order in which it needs them on its way in."""


async def test_without_the_rights_the_condition_names_each_that_is_missing(hand: ServiceHand) -> None:
    before = prepared(hand)
    hand.model()
    granted = hand.rules("beamlit-controller")
    user = hand.server.user(hand.namespace, "controller", *granted)
    async with taking_over(user.kubeconfig, hand.namespace):
        for verb, group, resource in NEEDED:
            missing = f"may not {verb} {f'{resource}.{group}'.rstrip('.')} {hand.namespace}/chat"
            said = await eventually(
                lambda: asyncio.to_thread(hand.fronted), lambda seen, missing=missing: missing in seen[2]
            )
            assert said[:2] == ("False", "NotPermitted")
            assert "bind the ClusterRole beamlit-controller-takeover" in said[2]
            assert hand.written_by_owners() == before
            granted.append({"apiGroups": [group], "resources": [resource], "verbs": [verb]})
            hand.server.user(hand.namespace, "controller", *granted)
        await hand.until_fronted("True", "TakenOver")


async def test_an_edit_of_the_service_reference_gives_the_first_one_back_before_the_second_is_served(
    hand: ServiceHand,
) -> None:
    before = prepared(hand)
    hand.pod("other-1", "10.8.1.1", labels={"app": "other"})
    hand.service({**HTTP, "selector": {"app": "other"}}, "other")
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        port = hand.status()["servingPort"]
        hand.patch_model({"serviceRef": {"name": "other"}})

        def served() -> tuple[str, str]:
            """Whose pods are served, and the version of the cluster at which that is said."""
            model = hand.read("modeldeployments", "chat")
            assert model
            local = model["status"]["route"]["local"]
            return local.get("fronted") or local["service"], model["metadata"]["resourceVersion"]

        # Looked at without a pause: the first moment is the one that counts.
        name, version = "chat", ""
        while name == "chat":
            name, version = await asyncio.to_thread(served)
        assert name == "other"
        # At that very version: what is read right before or after it is of another moment.
        assert f"10.9.0.1:{port}" not in await asyncio.to_thread(hand.ways, version=version)
        await eventually(lambda: asyncio.to_thread(hand.written_by_owners), lambda seen: seen == before)
        await hand.until_fronted("True", "TakenOver")
        await hand.until_ways(f"10.9.0.1:{port}", f"10.9.0.2:{port}", service="other")
        await hand.until_ways("10.8.0.1:8080", "10.8.0.2:8080")
        # The shadow of the first one goes when no route follows it any more, beside what is done for the second.
        await eventually(
            lambda: asyncio.to_thread(hand.traces), lambda seen: all(one.startswith("other-") for one in seen)
        )


async def test_when_every_gateway_is_gone_clients_reach_the_pods_until_one_is_back(hand: ServiceHand) -> None:
    prepared(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        port = hand.status()["servingPort"]
        for name in ("gateway-0", "gateway-1"):
            hand.remove_pod(name)
        await hand.until_ways("10.8.0.1:8080", "10.8.0.2:8080")
        assert hand.selector() == CHAT
        await hand.until_fronted("False", "GatewayNotReady")
        hand.pod("gateway-2", "10.9.0.3", "fd00:9::3", labels={"app": "gateway"})
        await hand.until_fronted("True", "TakenOver")
        await hand.until_ways(f"10.9.0.3:{port}")


async def test_a_replica_that_does_not_lead_gives_back_what_nobody_wants_any_more(hand: ServiceHand) -> None:
    before = prepared(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
    hand.force_delete_model()
    assert hand.selector() != CHAT
    async with taking_over(hand.server.kubeconfig, hand.namespace, leads=False):
        await hand.until_restored(before)


async def test_what_another_replica_created_meanwhile_is_no_failure(
    hand: ServiceHand, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that is lost is the same to who asked: it is there, and he did not know."""
    prepared(hand)
    hand.model()

    def creates_the_shadow(request: Request) -> bool:
        return request.method == "POST" and request.resource == "services"

    # It tries again when it hears of the shadow, and not because it has heard nothing yet.
    timing = replace(QUICK, written_again_after=600.0)
    async with (
        Proxy(hand.server, tmp_path).running() as proxy,
        taking_over(proxy.kubeconfig, hand.namespace, timing=timing) as late,
    ):
        with proxy.requests_held(creates_the_shadow) as gate:
            await until(lambda: gate.waiting, "the leader is about to create the shadow")
            async with taking_over(hand.server.kubeconfig, hand.namespace, leads=False):
                await eventually(lambda: asyncio.to_thread(hand.read, "services", "chat-beamlit"), bool)
        await hand.until_fronted("True", "TakenOver")
        assert late.loop.counts.writes["create", "Service", "superseded"] == 1
    assert "service not written" not in caplog.text
