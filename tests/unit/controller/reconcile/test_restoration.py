"""What a restore finds: every trace that a takeover may have left, and whose it is."""

from __future__ import annotations

import itertools
from typing import Any

from controller.api.kubernetes.fronting import CONTROLLER_CLASS, FINALIZER, FRONTED_KEY, SHADOW_OF, SLICES_OF
from controller.api.kubernetes.objects import MANAGED_BY, SERVICE_NAME
from controller.reconcile.restoration import found_in, in_view
from controller.store.objects import ObjectRef, StoredObject


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


def test_what_would_be_done_is_said_of_each() -> None:
    lines = list(in_view(found_in([NARROWED], [], [a_model("held", FINALIZER)])))
    assert lines == [
        "a/chat: its selector would be as its owner wrote it, our EndpointSlices and chat-beamlit removed",
        "model a/held: its finalizer would be taken off",
    ]
