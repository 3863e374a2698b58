"""What may be gone around a takeover: the model, which comes back from a backup, and all that answers for it."""

from __future__ import annotations

import asyncio
from typing import Any

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import Remote, Route
from controller.observe.proxies import Programmed
from controller.store.objects import ObjectRef
from tests.support.kube.endpoint_controllers import ServiceHand
from tests.support.kube.taking_over import taking_over
from tests.support.proxies import AllProgrammed
from tests.support.waiting import eventually

CHAT = {"app": "chat"}
PORT = 12345


def prepared(hand: ServiceHand) -> dict[str, Any]:
    """Write a gateway, a pod and its Service; return the Service as its owner has it."""
    hand.gateways("10.9.0.1")
    hand.pod("chat-1", "10.8.0.1", labels=CHAT)
    hand.service({"selector": CHAT, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]})
    return hand.written_by_owners()


async def test_a_model_from_a_backup_has_the_port_that_it_fixes_and_its_clients_are_led_there_again(
    hand: ServiceHand,
) -> None:
    before = prepared(hand)
    hand.model(servingPort=PORT)
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        await hand.until_noted()
    lost = hand.read("modeldeployments", "chat")
    assert lost
    # Only the model is lost, with its status: its Service goes on leading to the gateway.
    hand.force_delete_model()
    hand.model(servingPort=PORT)
    restored = hand.read("modeldeployments", "chat")
    assert restored
    assert (restored["spec"], restored.get("status")) == (lost["spec"], None)
    assert restored["metadata"]["uid"] != lost["metadata"]["uid"]
    assert hand.ways() == {f"10.9.0.1:{PORT}"}
    async with taking_over(hand.server.kubeconfig, hand.namespace):
        await hand.until_fronted("True", "TakenOver")
        assert hand.status()["servingPort"] == PORT
        await hand.until_ways(f"10.9.0.1:{PORT}")
        hand.delete_model()
        await hand.until_restored(before)


class NobodyThere(AllProgrammed):
    """Envoys and a remote backend that are there until all of them are gone, as when a network is cut."""

    def __init__(self) -> None:
        self.gone = False

    @property
    def silence(self) -> str:  # type: ignore[override]
        return "no xDS server answers" if self.gone else ""

    def report(self, model: ObjectRef, route: Route) -> Programmed | None:
        return None if self.gone else super().report(model, route)

    def remote(self, model: ObjectRef, remote: Remote) -> RemoteHealth | None:
        return RemoteHealth(healthy=not self.gone, reason="ConnectFailure" if self.gone else "Answering")


async def test_a_deletion_waits_neither_for_the_remote_backend_nor_for_the_xds_servers(
    hand: ServiceHand,
) -> None:
    before = prepared(hand)
    hand.model(offloadingConfig={"remoteBackend": {"host": "platform.invalid"}})
    proxies = NobodyThere()
    async with taking_over(hand.server.kubeconfig, hand.namespace, proxies=proxies):
        await hand.until_fronted("True", "TakenOver")
        proxies.gone = True
        hand.patch_model({"environment": "staging"})

        def remote_healthy() -> bool:
            conditions = {one["type"]: one for one in hand.status()["conditions"]}
            return conditions["RemoteHealthy"]["status"] == "True"

        await eventually(lambda: asyncio.to_thread(remote_healthy), lambda seen: not seen)
        assert hand.selector() != CHAT
        hand.delete_model()
        await eventually(lambda: asyncio.to_thread(hand.read, "modeldeployments", "chat"), lambda seen: seen is None)
        await hand.until_restored(before)
        await hand.until_ways("10.8.0.1:8080")
