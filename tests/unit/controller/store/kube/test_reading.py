"""The API server's words, read: what is kept of an object, and what an event stands for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from controller.api.registry import SERVICE
from controller.store.kube.reflector import WatchEvent, read_event, read_list
from controller.store.objects import ObjectRef
from controller.store.protocol import ExpiredError, StoreError, UnavailableError


def item(name: str = "a", version: str = "7", **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "uid": "u", "resourceVersion": version, **metadata}}


def line(kind: str, raw: object) -> bytes:
    return json.dumps({"type": kind, "object": raw}).encode()


def test_an_item_of_a_list_gets_the_kind_that_it_does_not_say() -> None:
    listing = read_list(SERVICE, [{"metadata": {"resourceVersion": "9"}, "items": [item()]}])
    (stored,) = listing.objects.values()
    assert listing.version == 9
    assert stored.ref == ObjectRef("Service", "default", "a")
    assert (stored.raw["apiVersion"], stored.raw["kind"]) == ("v1", "Service")
    assert stored.generation == 0


def test_pages_are_one_list() -> None:
    pages = [{"metadata": {"resourceVersion": "9"}, "items": [item(name)]} for name in "ab"]
    assert len(read_list(SERVICE, pages).objects) == 2


def test_a_list_without_items_is_empty() -> None:
    assert read_list(SERVICE, [{"metadata": {"resourceVersion": "9"}, "items": None}]).objects == {}


def test_what_nobody_reads_is_not_kept() -> None:
    applied = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "beamlit.com/paused": "true"}
    raw = item(managedFields=[{"manager": "kubectl"}], annotations=applied)
    stored = read_event(SERVICE, line("ADDED", raw)).stored
    assert stored is not None
    assert "managedFields" not in stored.metadata
    assert stored.metadata["annotations"] == {"beamlit.com/paused": "true"}


def test_a_bookmark_has_a_version_and_no_object() -> None:
    raw = {"kind": "Service", "metadata": {"resourceVersion": "12"}}
    assert read_event(SERVICE, line("BOOKMARK", raw)) == WatchEvent("BOOKMARK", 12)


def test_an_error_event_is_the_error_that_it_stands_for() -> None:
    with pytest.raises(ExpiredError, match="too old resource version"):
        read_event(SERVICE, line("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"}))
    with pytest.raises(UnavailableError):
        read_event(SERVICE, line("ERROR", {"kind": "Status"}))


@pytest.mark.parametrize("text", [b"{", b"[]", b"{}", b"null", b'{"type":"ADDED","object":{}}', b'{"type":"ERROR"}'])
def test_what_is_no_event_is_trouble_and_not_a_crash(text: bytes) -> None:
    with pytest.raises(StoreError):
        read_event(SERVICE, text)


@pytest.mark.parametrize("page", [{}, {"metadata": {}}, {"metadata": {"resourceVersion": "x"}, "items": []}])
def test_what_is_no_list_is_trouble_and_not_a_crash(page: dict[str, Any]) -> None:
    with pytest.raises(UnavailableError):
        read_list(SERVICE, [page])
