"""A controller that is killed at its writes: the scene, the writes in their order, and how it is played."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from tests.support.kube.endpoint_controllers import ServiceHand, ways_in
from tests.support.kube.taking_over import Killing, taking_over
from tests.support.waiting import eventually

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
        watched = asyncio.create_task(always_led(hand))
        await until_dead_or(killing, done)
        # Kubernetes goes on without it.
        await asyncio.sleep(0.1)
        watched.cancel()
        await asyncio.gather(watched, return_exceptions=True)
        if watched.done() and not watched.cancelled():
            watched.result()
    return killing.writes


async def always_led(hand: ServiceHand) -> None:
    """Look again and again where clients are led: it is never nowhere."""
    while True:
        slices = await asyncio.to_thread(hand.slices)
        for port in ("http", "admin"):
            assert ways_in(slices, port), f"nothing is behind the port {port}"
        await asyncio.sleep(0.01)
