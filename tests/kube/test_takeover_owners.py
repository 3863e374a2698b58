"""The tools of a Service's owner go on working while it is taken over: none conflicts with us, and we follow them."""

from __future__ import annotations

import asyncio
import json
import re
import shlex
from subprocess import CalledProcessError
from typing import Any

import pytest

from controller.api.kubernetes.fronting import FRONTED_KEY, NARROWED, RESETS
from controller.api.timing import REAL
from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.taking_over import taking_over
from tests.support.processes import ROOT
from tests.support.waiting import eventually

CHAT = {"app": "chat"}
NARROW = {FRONTED_KEY: "true"}


def manifest(hand: ServiceHand, **spec: Any) -> str:
    """The Service as its owner has it in a file."""
    ports = [{"name": "http", "port": 80, "targetPort": 8080}]
    metadata = {"name": "chat", "namespace": hand.namespace}
    whole = {"selector": CHAT, "ports": ports, **spec}
    return json.dumps({"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": whole})


async def applied(hand: ServiceHand, *options: str, **spec: Any) -> str:
    """Apply the file as its owner does, and return what kubectl says."""
    arguments = ("apply", "--filename=-", *options)
    done = await asyncio.to_thread(hand.server.kubectl, *arguments, input=manifest(hand, **spec))
    return done.stdout


async def until_selector(hand: ServiceHand, **expected: str) -> None:
    await eventually(lambda: asyncio.to_thread(hand.selector), lambda seen: seen == {**expected, **NARROW})


def prepare(hand: ServiceHand) -> None:
    hand.gateways("10.9.0.1")
    hand.pod("chat-1", "10.8.0.1", labels={**CHAT, "version": "1"})
    hand.pod("chat-2", "10.8.0.2", labels={**CHAT, "version": "2"})


async def until_pods(hand: ServiceHand, *ways: str) -> None:
    await hand.until_ways(*ways, service="chat-beamlit")


async def until_narrowed_after(hand: ServiceHand, resets: int) -> None:
    """Wait until the Service was narrowed, again after so many times that it was set back."""

    def is_so(shadow: dict[str, Any] | None) -> bool:
        noted = shadow["metadata"]["annotations"] if shadow else {}
        counted = len(noted.get(RESETS, "").split(",")) if noted.get(RESETS) else 0
        return NARROWED in noted and counted == resets

    await eventually(lambda: asyncio.to_thread(hand.read, "services", "chat-beamlit"), is_so)


async def test_client_side_apply_changes_what_it_is_about_and_leaves_our_key_alone(hand: ServiceHand) -> None:
    prepare(hand)
    await applied(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace) as running:
        await hand.until_fronted("True", "TakenOver")
        await until_narrowed_after(hand, 0)
        assert "unchanged" in await applied(hand)
        await applied(hand, selector={**CHAT, "version": "2"})
        assert hand.selector() == {**CHAT, "version": "2", **NARROW}
        await until_pods(hand, "10.8.0.2:8080")
        await applied(hand, selector={"version": "1"}, ports=[{"name": "http", "port": 80, "targetPort": 9090}])
        await until_selector(hand, version="1")
        await until_pods(hand, "10.8.0.1:9090")
        await hand.until_ways(f"10.9.0.1:{hand.status()['servingPort']}")
        assert hand.fronted()[:2] == ("True", "TakenOver")
        # None of it was a reset.
        assert running.killing.writes.count("release Service") == 1
        hand.delete_model()
        await eventually(lambda: asyncio.to_thread(hand.traces), lambda seen: seen == [])
        assert hand.selector() == {"version": "1"}
        assert "unchanged" in await applied(
            hand, selector={"version": "1"}, ports=[{"name": "http", "port": 80, "targetPort": 9090}]
        )


async def test_server_side_apply_meets_no_conflict_and_its_reset_is_undone(hand: ServiceHand) -> None:
    prepare(hand)
    owner = ("--server-side", "--field-manager=helm")
    await applied(hand, *owner)
    before = hand.written_by_owners()
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        await hand.until_released()
        for target in (8081, 8082):
            # Without --force-conflicts: it fails where a field is somebody else's.
            ports = [{"name": "http", "port": 80, "targetPort": target}]
            await applied(hand, *owner, ports=ports)
            await until_selector(hand, **CHAT)
            await until_pods(hand, f"10.8.0.1:{target}", f"10.8.0.2:{target}")
            await hand.until_fronted("True", "TakenOver")
            await hand.until_released()
        await applied(hand, *owner)
        await until_selector(hand, **CHAT)
        hand.delete_model()
        await hand.until_restored(before)
        assert "beamlit-controller" not in hand.managers()
        await applied(hand, *owner, selector={"version": "2"})
        assert hand.selector() == {"version": "2"}


async def test_what_a_naive_patch_would_do_to_the_owner(hand: ServiceHand) -> None:
    """The conflict that the release of our fields is good for: so the test above can fail."""
    await applied(hand, "--server-side", "--field-manager=helm")
    with hand.server.client() as client:
        path = f"/api/v1/namespaces/{hand.namespace}/services/chat"
        changes = json.dumps({"spec": {"selector": NARROW}})
        headers = {"Content-Type": "application/merge-patch+json", "User-Agent": "beamlit-controller"}
        client.patch(path, content=changes, headers=headers).raise_for_status()
    with pytest.raises(CalledProcessError) as refused:
        await applied(hand, "--server-side", "--field-manager=helm")
    assert 'conflict with "beamlit-controller"' in refused.value.stderr


async def test_an_edit_by_hand_is_followed(hand: ServiceHand) -> None:
    prepare(hand)
    await applied(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        hand.patch_service({"spec": {"selector": {"app": None, "version": "1"}}})
        await until_pods(hand, "10.8.0.1:8080")
        hand.patch_service({"spec": {"ports": [{"name": "web", "port": 80, "targetPort": 8080}]}})
        await hand.until_ways(f"10.9.0.1:{hand.status()['servingPort']}", port="web")
        await hand.until_fronted("True", "TakenOver")
        assert hand.status()["route"]["local"]["portName"] == "web"
        hand.patch_service({"spec": {"type": "NodePort", "publishNotReadyAddresses": True}})
        hand.set_ready("chat-1", ready=False)
        await until_pods(hand, "10.8.0.1:8080")
        # What cannot be taken over any more is given back.
        hand.patch_service(
            {"spec": {"ports": [{"name": "web", "port": 80}, {"name": "u", "port": 9, "protocol": "UDP"}]}}
        )
        await hand.until_fronted("False", "NotFrontable")
        await eventually(lambda: asyncio.to_thread(hand.traces), lambda seen: seen == [])
        assert hand.selector() == {"version": "1"}


async def test_a_service_that_is_deleted_and_made_again_is_taken_over_again(hand: ServiceHand) -> None:
    prepare(hand)
    await applied(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        hand.server.kubectl("delete", "service", "chat", f"--namespace={hand.namespace}")
        await eventually(lambda: asyncio.to_thread(hand.traces), lambda seen: len(seen) < 2)
        await applied(hand)
        await until_selector(hand, **CHAT)
        await hand.until_fronted("True", "TakenOver")
        await hand.until_ways(f"10.9.0.1:{hand.status()['servingPort']}")


async def test_a_rollout_and_a_scale_are_seen_through_the_gateway(hand: ServiceHand) -> None:
    prepare(hand)
    await applied(hand)
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        hand.pod("chat-3", "10.8.0.3", labels=CHAT)
        hand.remove_pod("chat-1")
        await until_pods(hand, "10.8.0.2:8080", "10.8.0.3:8080")
        await eventually(lambda: asyncio.to_thread(hand.status), lambda seen: seen["local"]["summary"] == "2/2")
        await hand.until_ways(f"10.9.0.1:{hand.status()['servingPort']}")


async def test_who_sets_the_selector_back_again_and_again_gets_the_service_back(hand: ServiceHand) -> None:
    prepare(hand)
    owner = ("--server-side", "--field-manager=argocd")
    await applied(hand, *owner)
    before = hand.written_by_owners()
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace) as running:
        for number in range(REAL.takeover.resets_tolerated):
            await until_narrowed_after(hand, number)
            await applied(hand, *owner)
        words = await hand.until_fronted("False", "TakeoverContested")
        assert "set the selector" in words
        assert "docs/takeover.md" in words
        await hand.until_restored(before)
        assert ("Warning", "TakeoverContested") in [(one.type, one.reason) for one in running.events]
    # It stays so, also for the next replica that decides, until somebody edits the model.
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        hand.pod("chat-3", "10.8.0.3", labels=CHAT)
        await eventually(lambda: asyncio.to_thread(hand.status), lambda seen: seen["local"]["summary"] == "3/3")
        assert hand.fronted()[:2] == ("False", "TakeoverContested")
        assert hand.written_by_owners() == before
        hand.patch_model({"environment": "development"})
        await hand.until_fronted("True", "TakenOver")


async def test_what_the_documentation_says_gives_a_service_back_without_any_controller(hand: ServiceHand) -> None:
    prepare(hand)
    await applied(hand)
    before = hand.written_by_owners()
    hand.model()
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
    text = (ROOT / "docs" / "takeover.md").read_text()
    (script,) = re.findall(r"To take the way out without a controller.*?```sh\n(.*?)```", text, re.DOTALL)
    commands = script.replace("\\\n", " ").replace("-n team", f"--namespace={hand.namespace}").splitlines()
    for command in commands:
        program, *arguments = shlex.split(command)
        assert program == "kubectl"
        await asyncio.to_thread(hand.server.kubectl, *arguments)
    await hand.until_restored(before)
    await hand.until_ways("10.8.0.1:8080", "10.8.0.2:8080")
    model = hand.read("modeldeployments", "chat")
    assert model
    assert "finalizers" not in model["metadata"]
