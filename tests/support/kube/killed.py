"""A controller that is killed at its writes: the scene, the writes in their order, and how it is played."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

from controller.api.timing import KubeTiming
from controller.store.kube import KubeClient
from tests.support.kube.endpoint_controllers import ServiceHand, of_service, ways_in
from tests.support.kube.taking_over import Killing, taking_over
from tests.support.waiting import eventually, until

UNHURRIED = KubeTiming(connect=300, answer=300, silence=300)
"""Who watches may stand still for as long as everybody else."""
CHAT = {"app": "chat"}
HTTP = {
    "selector": CHAT,
    "ports": [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "admin", "port": 81, "targetPort": 9000}],
}
IN = [
    "patch ModelDeployment",
    "create Service",
    "create EndpointSlice",
    "create EndpointSlice",
    "patch Service",
    "release Service",
    "patch Service",
]
OUT = [
    "patch Service",
    "release Service",
    "patch Service",
    "delete EndpointSlice",
    "delete EndpointSlice",
    "patch Service",
    "patch ModelDeployment",
    "release Service",
    "delete Service",
]


async def prepare(hand: ServiceHand) -> None:
    """Write a gateway, a pod, its Service and a model, and wait until Kubernetes has put the pod behind the Service."""
    hand.gateways("10.9.0.1")
    hand.pod("chat-1", "10.8.0.1", labels=CHAT)
    hand.service(HTTP)
    await hand.until_ways("10.8.0.1:8080", "10.8.0.1:9000")
    hand.model(port=80)


async def until_dead_or(killing: Killing, done: Callable[[], Awaitable[None]]) -> None:
    """Wait until the controller was killed, or has done what it had to."""
    waiting = [asyncio.ensure_future(killing.dead.wait()), asyncio.ensure_future(done())]
    _, left = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for one in left:
        one.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def is_taken_over(hand: ServiceHand) -> None:
    await hand.until_fronted("True", "TakenOver")
    await hand.until_noted()


async def is_given_back(hand: ServiceHand, before: Mapping[str, Any]) -> None:
    await hand.until_restored(before)
    await eventually(lambda: asyncio.to_thread(hand.read, "modeldeployments", "chat"), lambda seen: seen is None)


async def played(hand: ServiceHand, killing: Killing, done: Callable[[], Awaitable[None]]) -> list[str]:
    """Run a controller until it is killed or done; return what it wrote. Clients are led somewhere all the time."""
    async with taking_over(hand.server.kubeconfig, hand.namespace, killing):
        led = Led(hand)
        following = asyncio.create_task(led.follow())
        await until_dead_or(killing, done)
        # Kubernetes goes on without it.
        await asyncio.sleep(0.1)
        await until(lambda: following.done() or led.has_seen_all(), "all that there was has been seen")
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        if not following.cancelled():
            following.result()
    return killing.writes


class Led:
    """Where clients are led, in every state that there was: it is never nowhere.

    It is told of each as kube-proxy is. Who looks again and again misses most of them, and takes more turns.
    """

    def __init__(self, hand: ServiceHand) -> None:
        self._hand = hand
        self._slices: dict[str, Mapping[str, Any]] = {}

    async def follow(self) -> None:
        """Go on until it is cancelled, or clients are led nowhere: then raise AssertionError."""
        listed = await asyncio.to_thread(self._hand.list_of_slices)
        self._slices = {one["metadata"]["name"]: one for one in listed["items"]}
        self._check()
        since = {"resourceVersion": listed["metadata"]["resourceVersion"], "allowWatchBookmarks": "true"}
        async with KubeClient.from_environment(self._hand.server.kubeconfig, timing=UNHURRIED) as client:
            async for line in client.lines(self._hand.path_of_slices, {"watch": "true"} | since | of_service("chat")):
                match json.loads(line):
                    case {"type": "ADDED" | "MODIFIED", "object": one}:
                        self._slices[one["metadata"]["name"]] = one
                    case {"type": "DELETED", "object": one}:
                        del self._slices[one["metadata"]["name"]]
                    case event:
                        assert event["type"] == "BOOKMARK", event
                self._check()
        raise AssertionError("the API server has ended the watch")

    async def has_seen_all(self) -> bool:
        """Whether it was told of what there is now."""
        listed = await asyncio.to_thread(self._hand.slices)
        return versions_of(listed) == versions_of(self._slices.values())

    def _check(self) -> None:
        for port in ("http", "admin"):
            assert ways_in(self._slices.values(), port), f"nothing is behind the port {port}"


def versions_of(slices: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {one["metadata"]["name"]: one["metadata"]["resourceVersion"] for one in slices}
