"""What a restore finds: every trace that a takeover may have left, and whose it is."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from controller.api.kubernetes.endpoints import ENDPOINT_CONTROLLER
from controller.api.kubernetes.fronting import CONTROLLER_CLASS, FINALIZER, FRONTED_KEY, SHADOW_OF, SLICES_OF
from controller.api.kubernetes.objects import MANAGED_BY, SERVICE_NAME
from controller.api.timing import TakeoverTiming
from controller.reconcile.restoration import ServiceRestoration, found_in, in_view
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import NotFoundError
from tests.support.objects import a_slice
from tests.support.store import MemoryStore
from tests.support.waiting import PATIENCE, time_limit


def stored(kind: str, name: str, **content: Any) -> StoredObject:
    metadata = {"namespace": "a", "name": name, "uid": name, "resourceVersion": "1", **content.pop("metadata", {})}
    return StoredObject(ObjectRef(kind, "a", name), {"metadata": metadata, **content})


NARROWED = stored("Service", "chat", spec={"selector": {"app": "chat", FRONTED_KEY: "true"}})
WIDE = stored("Service", "code", spec={"selector": {"app": "code"}})
SHADOW = stored("Service", "code-beamlit", metadata={"labels": {SHADOW_OF: "code", CONTROLLER_CLASS: "blue"}})
SLICE = stored("EndpointSlice", "any", metadata={"labels": {SERVICE_NAME: "gone", MANAGED_BY: SLICES_OF}})
CHAT, CODE, GONE = (ObjectRef("Service", "a", name) for name in ("chat", "code", "gone"))


def a_model(name: str, *finalizers: str, fronted: str = "", controller_class: str = "") -> StoredObject:
    local = {"namespace": "a", "service": f"{fronted}-beamlit", "fronted": fronted} if fronted else {"service": name}
    status = {"route": {"local": local}}
    spec = {"controllerClass": controller_class}
    return stored("ModelDeployment", name, metadata={"finalizers": list(finalizers)}, status=status, spec=spec)


def test_every_trace_alone_leads_to_the_service() -> None:
    assert dict(found_in([NARROWED], [], []).services) == {CHAT: ""}
    assert dict(found_in([WIDE], [], []).services) == {}
    assert dict(found_in([WIDE, SHADOW], [], []).services) == {CODE: "blue"}
    assert dict(found_in([], [SLICE], []).services) == {GONE: ""}
    assert dict(found_in([], [], [a_model("m", fronted="lost")]).services) == {ObjectRef("Service", "a", "lost"): ""}
    for order in itertools.permutations([NARROWED, WIDE, SHADOW]):
        assert dict(found_in(list(order), [SLICE], []).services) == {CHAT: "", CODE: "blue", GONE: ""}


def test_what_only_says_that_it_is_a_shadow_is_none() -> None:
    """Whoever may label a Service must not have another one of his removed by that."""
    liar = stored("Service", "database", metadata={"labels": {SHADOW_OF: "chat"}})
    assert dict(found_in([liar], [], []).services) == {}


def test_models_are_those_that_somebody_has_to_let_go() -> None:
    held, free, routed = a_model("held", FINALIZER), a_model("free", "other"), a_model("routed", fronted="code")
    assert set(found_in([], [], [held, free, routed]).models) == {held.ref, routed.ref}


def test_a_class_has_its_own_alone() -> None:
    blue = a_model("blue", FINALIZER, controller_class="blue")
    found = found_in([NARROWED, SHADOW], [], [blue, a_model("none", FINALIZER)])
    assert dict(found.of_class("blue").services) == {CODE: "blue"}
    assert set(found.of_class("blue").models) == {blue.ref}
    assert dict(found.of_class("").services) == {CHAT: ""}


def test_a_shadow_says_whose_a_service_is_whatever_is_beside_it() -> None:
    of_green = {SERVICE_NAME: "code", MANAGED_BY: SLICES_OF, CONTROLLER_CLASS: "green"}
    beside = stored("EndpointSlice", "a-slice", metadata={"labels": of_green})
    assert dict(found_in([WIDE, SHADOW], [beside], []).services) == {CODE: "blue"}
    classless = stored("Service", "code-beamlit", metadata={"labels": {SHADOW_OF: "code"}})
    for services in itertools.permutations([narrowed("code"), classless]):
        assert dict(found_in(list(services), [beside], []).services) == {CODE: ""}
    assert dict(found_in([narrowed("code")], [beside], []).services) == {CODE: "green"}


def narrowed(name: str) -> StoredObject:
    return stored("Service", name, spec={"selector": {"app": name, FRONTED_KEY: "true"}})


def test_what_would_be_done_is_said_of_each() -> None:
    lines = list(in_view(found_in([NARROWED], [], [a_model("held", FINALIZER)])))
    assert lines == [
        "a/chat: its selector would be as its owner wrote it, our EndpointSlices and chat-beamlit removed",
        "model a/held: its finalizer would be taken off",
    ]


class Slices:
    """Lists the EndpointSlices that there are. An `ObjectLister`."""

    def __init__(self, *slices: StoredObject) -> None:
        self._slices = slices

    async def list(self, kind: str, namespace: str, labels: str = "") -> tuple[StoredObject, ...]:
        return self._slices


class InStore:
    """Lists the EndpointSlices of a store, of every Service alike. An `ObjectLister`."""

    def __init__(self, store: MemoryStore) -> None:
        self._store = store

    async def list(self, kind: str, namespace: str, labels: str = "") -> tuple[StoredObject, ...]:
        return tuple(one for ref, one in self._store._objects.items() if ref.kind == kind)


async def test_a_service_that_became_another_name_of_a_host_is_restored_though_no_pods_are_behind_it() -> None:
    external = {"type": "ExternalName", "externalName": "example.com", "selector": {"app": "chat"}}
    service = stored("Service", "chat", spec=external)
    shadow = stored(
        "Service",
        "chat-beamlit",
        metadata={"labels": {SHADOW_OF: "chat"}},
        spec={"clusterIP": "None", "selector": {"app": "chat"}},
    )
    model = a_model("m", fronted="chat")
    store = MemoryStore(StoredObject(one.ref, {**one.raw, "kind": one.ref.kind}) for one in (service, shadow, model))
    slices = Slices(
        a_slice("chat-beamlit").in_namespace("a").written_by(ENDPOINT_CONTROLLER).port(80).ready("10.0.0.1").stored()
    )
    timing = TakeoverTiming(kube_proxy_within=0)
    restoration = ServiceRestoration(store, slices, {model.ref: model}, timing, lambda: datetime.now(UTC))
    async with time_limit(PATIENCE):
        await restoration.restore(CHAT, lambda _: None)
    assert store[model.ref].status["route"]["local"] == {"namespace": "a", "service": "chat"}
    with pytest.raises(NotFoundError):
        await store.read(shadow.ref)


async def test_a_shadow_and_slices_of_different_classes_keep_nobody_from_restoring_their_service() -> None:
    """No controller touches such a Service: each takes it for another one's."""
    shadow = stored(
        "Service",
        "chat-beamlit",
        metadata={"labels": {SHADOW_OF: "chat", CONTROLLER_CLASS: "blue"}},
        spec={"clusterIP": "None", "selector": {"app": "chat"}},
    )
    of_green = {SERVICE_NAME: "chat", MANAGED_BY: SLICES_OF, CONTROLLER_CLASS: "green"}
    ours = stored("EndpointSlice", "chat-ours", metadata={"labels": of_green}, endpoints=[], ports=[])
    store = MemoryStore(StoredObject(one.ref, {**one.raw, "kind": one.ref.kind}) for one in (NARROWED, shadow, ours))
    restoration = ServiceRestoration(
        store, InStore(store), {}, TakeoverTiming(kube_proxy_within=0), lambda: datetime.now(UTC)
    )
    async with time_limit(PATIENCE):
        await restoration.restore(CHAT, lambda _: None)
    assert store[CHAT].raw["spec"]["selector"] == {"app": "chat"}
    for gone in (shadow, ours):
        with pytest.raises(NotFoundError):
            await store.read(gone.ref)
