"""The loop over Services at work over a store: when a model is let go."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from controller.api.kubernetes.fronting import FINALIZER, FRONTED_KEY, GATEWAY_PORTS, NARROWED, SHADOW_OF, SLICES_OF
from controller.observe.fronting import TakeoverRules
from controller.reconcile.services import ServiceLoop, ServiceLoopDependencies
from controller.store.objects import ObjectRef, StoredObject
from tests.support.objects import a_model, a_service, a_slice
from tests.support.observations import NOW
from tests.support.store import MemoryStore, settled

GATEWAY = ObjectRef("Service", "default", "gateway")
UNREADABLE = {"model": ["no", "name"]}


def of(stored: StoredObject, spec: dict[str, Any], **metadata: Any) -> StoredObject:
    raw = {**stored.raw, "metadata": {**stored.raw["metadata"], **metadata}, "spec": spec}
    return StoredObject(stored.ref, raw)


def a_taken_over_service(*gateway_ports: int) -> tuple[StoredObject, ...]:
    """A Service with a shadow that records these ports of the gateway, and the gateway behind the last of them."""
    ports = [{"name": name, "protocol": "TCP", "port": number} for name, number in (("http", 80), ("admin", 81))]
    service = a_service("chat").stored()
    shadow = a_service("chat-beamlit").stored()
    recorded = {GATEWAY_PORTS: ",".join(map(str, gateway_ports)), NARROWED: service.uid}
    to_gateway = a_slice("chat", "ours").written_by(SLICES_OF).port(gateway_ports[0], "http").ready("10.9.0.1")
    return (
        of(service, {"selector": {"app": "chat", FRONTED_KEY: "true"}, "ports": ports}),
        of(shadow, {"clusterIP": "None", "ports": ports}, labels={SHADOW_OF: "chat"}, annotations=recorded),
        to_gateway.stored(),
        a_slice("gateway").ready("10.9.0.1").stored(),
    )


def a_fronting_model(name: str, port: int, port_name: str, **metadata: Any) -> StoredObject:
    local = {"namespace": "default", "service": "chat-beamlit", "fronted": "chat", "portName": port_name}
    status = {
        "observedGeneration": 1,
        "takeover": {"namespace": "default", "service": "chat", "portName": port_name},
        "route": {"port": port, "shares": {"local": 100}, "local": local, "remotes": []},
    }
    stored = a_model(name).fronting("chat").stored(status=status)
    return of(stored, stored.raw["spec"], finalizers=[FINALIZER], **metadata)


@contextlib.asynccontextmanager
async def looping(store: MemoryStore) -> AsyncIterator[None]:
    dependencies = ServiceLoopDependencies(
        clock=lambda: NOW, leads=lambda: True, look_again=lambda _: None, controller_class=""
    )
    running = asyncio.create_task(ServiceLoop(store, TakeoverRules(gateway=GATEWAY), dependencies).run())
    try:
        await settled()
        yield
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize(("leads_there", "held"), [(True, [FINALIZER]), (False, [])])
async def test_a_deleted_model_that_cannot_be_read_goes_though_its_service_is_anothers_too(
    leads_there: bool, held: list[str]
) -> None:
    """Its status says for ever that it asks for the takeover: nobody decides on what cannot be read."""
    other = a_fronting_model("chat", 10000, "http")
    gone = a_fronting_model("admin", 10001, "admin", deletionTimestamp="2026-01-01T00:00:00Z")
    gone = StoredObject(gone.ref, {**gone.raw, "spec": UNREADABLE})
    ports = (10000, 10001) if leads_there else (10000,)
    store = MemoryStore((*a_taken_over_service(*ports), other, gone))
    async with looping(store):
        assert (store[gone.ref].metadata.get("finalizers") or []) == held
        assert store[other.ref].metadata["finalizers"] == [FINALIZER]
