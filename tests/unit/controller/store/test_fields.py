"""Whose a field is, when several write an object."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.store.directory.fields import (
    Owners,
    apply_fields,
    fields_of,
    merge_patch,
    owners_after_update,
)
from controller.store.protocol import FieldConflict, FieldConflictError


# RFC 7386, appendix A, as far as both sides are objects.
@pytest.mark.parametrize(
    ("target", "changes", "merged"),
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_a_merge_patch(target: dict[str, Any], changes: dict[str, Any], merged: dict[str, Any]) -> None:
    before = repr(target)
    assert merge_patch(target, changes) == merged
    assert repr(target) == before


def applied(
    live: dict[str, Any], owners: Owners, manager: str, fields: dict[str, Any], *, force: bool = False
) -> tuple[dict[str, Any], Owners]:
    return apply_fields(live, fields, manager, owners, force=force)


def test_a_field_is_anything_but_a_filled_object_and_a_name_is_no_field() -> None:
    raw = {"kind": "K", "metadata": {"name": "a", "labels": {}}, "spec": {"items": [{"x": 1}], "n": 0, "no": None}}
    assert fields_of(raw) == {("metadata", "labels"): {}, ("spec", "items"): [{"x": 1}], ("spec", "n"): 0}


def test_a_list_is_one_field() -> None:
    live, owners = applied({}, {}, "one", {"items": [1, 2]})
    with pytest.raises(FieldConflictError) as conflict:
        applied(live, owners, "two", {"items": [1, 2, 3]})
    assert conflict.value.conflicts == (FieldConflict("one", ".items"),)


def test_an_empty_object_is_filled_by_others_and_stays_when_nobody_fills_it() -> None:
    live, owners = applied({}, {}, "one", {"map": {}})
    live, owners = applied(live, owners, "two", {"map": {"a": 1}})
    live, owners = applied(live, owners, "one", {"map": {}})
    assert live == {"map": {"a": 1}}
    live, owners = applied(live, owners, "one", {})
    assert live == {"map": {"a": 1}}


def test_a_value_where_another_has_an_object_is_a_conflict_and_so_the_other_way_round() -> None:
    live, owners = applied({}, {}, "one", {"a": {"b": 1}})
    with pytest.raises(FieldConflictError):
        applied(live, owners, "two", {"a": 1})
    live, owners = applied(live, owners, "two", {"a": 1}, force=True)
    assert (live, owners) == ({"a": 1}, {("two", "Apply"): frozenset({("a",)})})
    with pytest.raises(FieldConflictError):
        applied(live, owners, "one", {"a": {"b": 1}})
    live, owners = applied(live, owners, "one", {"a": {"b": 1}}, force=True)
    assert (live, owners) == ({"a": {"b": 1}}, {("one", "Apply"): frozenset({("a", "b")})})


def test_every_conflict_is_named() -> None:
    live, owners = applied({}, {}, "one", {"a": 1, "b": {"c": 2}})
    with pytest.raises(FieldConflictError) as conflict:
        applied(live, owners, "two", {"a": 2, "b": {"c": 3}})
    assert str(conflict.value) == ('Apply failed with 2 conflicts: conflict with "one": .a, conflict with "one": .b.c')


def test_what_an_update_removes_is_nobodys() -> None:
    live, owners = applied({}, {}, "one", {"a": 1, "b": 2})
    owners = owners_after_update(live, {"a": 1}, owners)
    assert owners == {("one", "Apply"): frozenset({("a",)})}
    again, _ = applied({"a": 1}, owners, "two", {"b": 3})
    assert again == {"a": 1, "b": 3}


LEAVES = st.integers(0, 3) | st.lists(st.integers(0, 1), max_size=2)
OBJECTS = st.recursive(
    st.dictionaries(st.sampled_from("abc"), LEAVES, max_size=3),
    lambda inner: st.dictionaries(st.sampled_from("abc"), inner | LEAVES, max_size=3),
    max_leaves=6,
)


@given(OBJECTS, OBJECTS)
def test_what_is_applied_twice_is_there_once(first: dict[str, Any], second: dict[str, Any]) -> None:
    live, owners = applied({}, {}, "one", first)
    assert fields_of(live) == fields_of(first)
    live, owners = applied(live, owners, "one", second)
    assert fields_of(live) == fields_of(second)
    assert applied(live, owners, "one", second) == (live, owners)


@given(OBJECTS, OBJECTS)
def test_what_was_forced_is_there_and_what_others_say_beside_it_stays(
    first: dict[str, Any], second: dict[str, Any]
) -> None:
    live, owners = applied({}, {}, "one", first)
    live, owners = applied(live, owners, "two", second, force=True)
    now = fields_of(live)
    assert all(now.get(path, value) == value for path, value in fields_of(second).items())
    kept = owners.get(("one", "Apply"), frozenset())
    assert {path: now[path] for path in kept if path in now} == {
        path: value for path, value in fields_of(first).items() if path in kept and path in now
    }
    live, owners = applied(live, owners, "two", {})
    assert fields_of(live).keys() <= fields_of(first).keys()
