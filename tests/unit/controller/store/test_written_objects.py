"""Bounds of what programs may write into a store without an API server."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from controller.store.directory.objects import Creation, ObjectTable
from controller.store.directory.state import StoreState
from controller.store.objects import ObjectRef
from controller.store.protocol import UNCONDITIONAL, RefusedError

KINDS = {("v1", "Service"): lambda raw: ()}
NUMBERS = itertools.count()
CREATION = Creation("2026-01-01T00:00:00Z", lambda: f"uid-{next(NUMBERS)}")


def a_table(state: StoreState | None = None) -> ObjectTable:
    return ObjectTable(state or StoreState(), 0, KINDS)


def an_object(name: str, size: int = 1) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default"}
    return {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"text": "x" * size}}


def ref(name: str) -> ObjectRef:
    return ObjectRef("Service", "default", name)


def test_no_more_than_a_thousand_objects_are_kept() -> None:
    table = a_table()
    for number in range(1000):
        table.create(an_object(f"s{number}"), CREATION)
    with pytest.raises(RefusedError, match="there are 1000 objects that programs wrote, as many as may be"):
        table.create(an_object("more"), CREATION)
    table.patch(ref("s0"), {"spec": {"text": "y"}}, UNCONDITIONAL, CREATION)
    table.delete(ref("s0"), UNCONDITIONAL)
    table.create(an_object("more"), CREATION)
    assert len(table.objects) == 1000


def test_all_of_them_together_are_bounded_and_a_refused_write_changes_nothing() -> None:
    table = a_table()
    for number in range(4):
        table.create(an_object(f"s{number}", 1_000_000), CREATION)
    with pytest.raises(RefusedError, match="would be larger than 4194304 characters"):
        table.create(an_object("more", 1_000_000), CREATION)
    with pytest.raises(RefusedError, match="would be larger"):
        table.patch(ref("s0"), {"spec": {"text": "x" * 1_500_000}}, UNCONDITIONAL, CREATION)
    assert len(table.find(ref("s0")).raw["spec"]["text"]) == 1_000_000
    table.patch(ref("s0"), {"spec": {"text": ""}}, UNCONDITIONAL, CREATION)
    table.create(an_object("more", 1_000_000), CREATION)


def test_the_bounds_hold_after_a_restart() -> None:
    table = a_table()
    for number in range(4):
        table.create(an_object(f"s{number}", 1_000_000), CREATION)
    again = a_table(table.state({}))
    again.define({}, CREATION)
    assert len(again.objects) == 4
    with pytest.raises(RefusedError, match="would be larger"):
        again.create(an_object("more", 1_000_000), CREATION)


def test_what_is_not_json_is_refused_and_nothing_is_written() -> None:
    table = a_table()
    with pytest.raises(TypeError):
        table.create(an_object("a") | {"spec": {"at": object()}}, CREATION)
    assert not table.objects
