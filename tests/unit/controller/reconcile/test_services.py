"""The loop over Services at work over a store: when a model is let go, and what a write that failed holds up."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from typing import Any

import pytest

from controller.api.kubernetes.fronting import FINALIZER, FRONTED_KEY, GATEWAY_PORTS, NARROWED, SHADOW_OF, SLICES_OF
from controller.observe.fronting import TakeoverRules
from controller.reconcile.services import ServiceLoop, ServiceLoopDependencies
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import UNCONDITIONAL, Precondition, UnavailableError
from tests.support.clock import Clock
from tests.support.objects import a_model, a_service, a_slice
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
        a_slice("gateway").of("IPv4").ready("10.9.0.1").stored(),
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
async def looping(store: MemoryStore, clock: Clock | None = None) -> AsyncIterator[None]:
    dependencies = ServiceLoopDependencies(
        clock=clock or Clock(), leads=lambda: True, look_again=lambda _: None, controller_class=""
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


class Refusing(MemoryStore):
    """A store that does not answer writes of some kinds, for a shadow all the same; `tried` counts them."""

    refused: frozenset[str] = frozenset()

    def __init__(self, *objects: StoredObject) -> None:
        super().__init__(objects)
        self.tried = Counter[str]()

    async def patch(
        self, ref: ObjectRef, changes: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        if ref.kind in self.refused and not ref.name.endswith("-beamlit"):
            self.tried[ref.kind] += 1
            raise UnavailableError("the API server does not answer")
        return await super().patch(ref, changes, precondition)


SERVICE = ObjectRef("Service", "default", "chat")
GATEWAY_SLICE = a_slice("gateway").stored().ref


def the_gateway(store: MemoryStore, *, ready: bool, address: str = "10.9.0.1") -> None:
    """Say of the only gateway whether it is ready, and where it is: again, if that is nothing new."""
    version = str(int(store[GATEWAY_SLICE].resource_version) + 1)
    slices = a_slice("gateway").of("IPv4")
    store.put((slices.ready(address) if ready else slices.not_ready(address)).stored(version=version))


async def pass_time(store: MemoryStore, clock: Clock, *, ready: bool) -> None:
    clock.advance(1)
    the_gateway(store, ready=ready, address="10.9.0.2")
    await settled()


async def failing_until_it_rests(store: Refusing, clock: Clock, kind: str, attempts: int, *, ready: bool) -> None:
    """Let time pass until so many writes of a kind have failed: after the last one the Service rests for a while."""
    for _ in range(200):
        if store.tried[kind] >= attempts:
            return
        await pass_time(store, clock, ready=ready)
    raise AssertionError(store.tried)


def is_narrowed(store: MemoryStore) -> bool:
    return FRONTED_KEY in store[SERVICE].raw["spec"]["selector"]


async def test_clients_get_their_pods_at_once_though_another_write_failed_again_and_again():
    store, clock = Refusing(*a_taken_over_service(10000), a_fronting_model("chat", 10000, "http")), Clock()
    async with looping(store, clock):
        store.refused = frozenset(("EndpointSlice",))
        # The last of these rests is half a minute long.
        await failing_until_it_rests(store, clock, "EndpointSlice", 8, ready=True)
        assert is_narrowed(store)
        the_gateway(store, ready=False)
        await settled()
        assert not is_narrowed(store)


async def test_what_gives_clients_their_pods_and_fails_itself_is_tried_again_soon_and_then_less_often():
    store, clock = Refusing(*a_taken_over_service(10000), a_fronting_model("chat", 10000, "http")), Clock()
    async with looping(store, clock):
        store.refused = frozenset(("EndpointSlice", "Service"))
        await failing_until_it_rests(store, clock, "EndpointSlice", 8, ready=True)
        the_gateway(store, ready=False)
        await settled()
        assert store.tried["Service"] == 1
        since = clock()
        await failing_until_it_rests(store, clock, "Service", 3, ready=False)
        assert clock() - since < timedelta(seconds=5)
        await failing_until_it_rests(store, clock, "Service", 8, ready=False)
        await pass_time(store, clock, ready=False)
        assert store.tried["Service"] == 8
        store.refused = frozenset()
        for _ in range(40):
            await pass_time(store, clock, ready=False)
        assert not is_narrowed(store)


class Hanging(MemoryStore):
    """A store in which deletions in one namespace take until they are `answered`."""

    def __init__(self, *objects: StoredObject) -> None:
        super().__init__(objects)
        self.answered = asyncio.Event()

    async def delete(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> None:
        if ref.namespace == "crowd":
            await self.answered.wait()
        await super().delete(ref, precondition)


async def test_a_namespace_whose_writes_hang_keeps_no_other_from_its_pods_and_goes_on_later():
    models = [a_model(f"m{number:02}").in_namespace("crowd") for number in range(20)]
    needless = [a_service(f"s{each.ref.name}").in_namespace("crowd").owned_by(each.stored()) for each in models]
    crowd = [one.stored() for one in (*models, *needless)]
    store, clock = Hanging(*a_taken_over_service(10000), a_fronting_model("chat", 10000, "http"), *crowd), Clock()
    async with looping(store, clock):
        await pass_time(store, clock, ready=True)
        assert is_narrowed(store)
        the_gateway(store, ready=False)
        await settled()
        assert not is_narrowed(store)
        assert all(one.ref in store._objects for one in needless)
        store.answered.set()
        await pass_time(store, clock, ready=False)
        assert not any(one.ref in store._objects for one in needless)
