"""What of the API server's words is believed: late ones, doubled ones, and lists that say too much at once."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.store.kube.collection import Changes, Collection, ObjectList
from controller.store.objects import ObjectRef, StoredObject

NOTHING = Changes()
SECOND_LOOK = 10.0


def ref(name: str = "a") -> ObjectRef:
    return ObjectRef("Service", "default", name)


def at(version: int, name: str = "a", uid: str = "first", **fields: Any) -> StoredObject:
    metadata = {"name": name, "namespace": "default", "uid": uid, "resourceVersion": str(version)}
    return StoredObject(ref(name), {"metadata": metadata, **fields})


def listing(version: int, *objects: StoredObject) -> ObjectList:
    return ObjectList({stored.ref: stored for stored in objects}, version)


def listed(version: int, *objects: StoredObject) -> Collection:
    collection = Collection(SECOND_LOOK)
    collection.replace(listing(version, *objects), 0.0)
    return collection


def names(collection: Collection) -> set[str]:
    return {stored.ref.name for stored in collection.objects}


def test_the_first_list_is_believed_whatever_it_says() -> None:
    collection = Collection(SECOND_LOOK)
    assert not collection.listed
    assert collection.replace(listing(5), 0.0) == NOTHING
    assert collection.listed
    assert collection.version == 5


def test_events_move_the_version_and_tell_what_changed() -> None:
    collection = listed(5)
    assert collection.apply_event("ADDED", at(6)) == Changes(changed=(at(6),))
    assert collection.apply_event("MODIFIED", at(8)) == Changes(changed=(at(8),))
    assert collection.apply_event("DELETED", at(9)) == Changes(deleted=(ref(),))
    assert collection.version == 9
    assert not collection.objects


def test_a_bookmark_moves_the_version_alone_and_never_back() -> None:
    collection = listed(5, at(3))
    collection.bookmark(20)
    collection.bookmark(7)
    assert collection.version == 20
    assert collection.find(ref()) == at(3)


def test_an_event_told_twice_is_told_once() -> None:
    collection = listed(5)
    collection.apply_event("ADDED", at(6))
    assert collection.apply_event("ADDED", at(6)) == NOTHING
    collection.apply_event("DELETED", at(7))
    assert collection.apply_event("DELETED", at(7)) == NOTHING


def test_an_event_older_than_what_is_held_is_ignored() -> None:
    collection = listed(5)
    collection.apply_event("MODIFIED", at(9))
    assert collection.apply_event("MODIFIED", at(8)) == NOTHING
    assert collection.apply_event("DELETED", at(8)) == NOTHING
    assert collection.find(ref()) == at(9)


def test_an_object_does_not_come_back_by_an_event_from_before_its_end() -> None:
    collection = listed(5, at(4))
    collection.apply_event("DELETED", at(7))
    assert collection.apply_event("MODIFIED", at(6)) == NOTHING
    assert collection.put(at(6)) == NOTHING  # As the answer to a write that came late.
    assert not collection.objects


def test_a_new_object_of_the_name_is_another() -> None:
    collection = listed(5, at(4))
    collection.apply_event("DELETED", at(7))
    assert collection.apply_event("ADDED", at(8, uid="second")) == Changes(changed=(at(8, uid="second"),))


def test_what_a_write_returned_is_told_at_once_and_its_event_is_not_told_again() -> None:
    collection = listed(5, at(4))
    assert collection.put(at(6)) == Changes(changed=(at(6),))
    assert collection.version == 5  # The watch has not come so far: what is in between is yet to be told.
    assert collection.apply_event("MODIFIED", at(6)) == NOTHING


def test_a_list_tells_only_what_differs() -> None:
    collection = listed(5, at(1, "a"), at(2, "b"), at(3, "c"))
    changes = collection.replace(listing(9, at(1, "a"), at(7, "b")), 0.0)
    assert changes == Changes(changed=(at(7, "b"),), deleted=(ref("c"),))
    assert names(collection) == {"a", "b"}
    assert collection.version == 9


def test_a_list_does_not_overrule_a_write_that_is_later() -> None:
    collection = listed(5, at(4))
    collection.put(at(12))
    assert collection.replace(listing(10, at(4)), 0.0) == NOTHING
    assert collection.find(ref()) == at(12)


def test_an_object_that_a_list_has_at_an_older_version_is_of_another_history() -> None:
    """Etcd came back from a backup and has been written to since: the list speaks for its own history."""
    collection = listed(90, at(80))
    assert collection.replace(listing(95, at(40)), 0.0) == Changes(changed=(at(40),))


def test_what_was_deleted_after_a_list_stays_deleted() -> None:
    collection = listed(5, at(1, "a"), at(2, "b"))
    collection.apply_event("DELETED", at(9, "a"))
    assert collection.replace(listing(8, at(1, "a"), at(2, "b")), 0.0) == NOTHING  # Nor is it believed: it lies behind.
    assert collection.suspect is not None
    assert names(collection) == {"b"}


@pytest.mark.parametrize("left", [0, 1, 4])
def test_a_list_that_lacks_more_than_half_deletes_nothing_without_a_second_look(left: int) -> None:
    objects = [at(1, f"m{number}") for number in range(10)]
    collection = listed(5, *objects)
    assert collection.replace(listing(9, *objects[:left]), 100.0) == NOTHING
    assert collection.suspect is not None
    assert collection.suspect.reason == f"it lacks {10 - left} of 10 objects"
    assert len(collection.objects) == 10
    assert collection.version == 5
    early = collection.replace(listing(9, *objects[:left]), 109.0)
    assert early == NOTHING
    second = collection.replace(listing(9, *objects[:left]), 110.0)
    assert len(second.deleted) == 10 - left
    assert collection.suspect is None
    assert len(collection.objects) == left


def test_the_only_object_is_not_deleted_without_a_second_look() -> None:
    collection = listed(5, at(1))
    assert collection.replace(listing(9), 0.0) == NOTHING
    assert collection.suspect is not None


def test_a_list_that_lacks_half_is_believed() -> None:
    collection = listed(5, at(1, "a"), at(2, "b"))
    assert collection.replace(listing(9, at(1, "a")), 0.0) == Changes(deleted=(ref("b"),))


def test_objects_that_are_back_at_the_second_look_were_never_gone() -> None:
    collection = listed(5, at(1, "a"), at(2, "b"))
    collection.replace(listing(9), 0.0)
    assert collection.replace(listing(10, at(1, "a"), at(2, "b")), 1.0) == NOTHING
    assert collection.suspect is None
    assert names(collection) == {"a", "b"}


def test_a_second_look_that_lacks_even_more_is_a_first_one() -> None:
    objects = [at(1, f"m{number}") for number in range(10)]
    collection = listed(5, *objects)
    collection.replace(listing(9, *objects[:4]), 0.0)
    assert collection.replace(listing(9, *objects[:1]), 10.0) == NOTHING
    assert len(collection.replace(listing(9, *objects[:1]), 20.0).deleted) == 9


def test_a_version_that_went_backwards_is_not_believed_without_a_second_look() -> None:
    collection = listed(1000, at(900, "a"), at(950, "b"))
    restored = listing(300, at(250, "a"), at(260, "b"))
    assert collection.replace(restored, 0.0) == NOTHING
    assert collection.suspect is not None
    assert collection.suspect.reason == "its resourceVersion 300 lies behind 1000, which was seen before"
    assert collection.find(ref("a")) == at(900, "a")
    assert collection.replace(listing(301, at(250, "a"), at(260, "b")), 10.0) == Changes(
        changed=(at(250, "a"), at(260, "b"))
    )
    assert collection.version == 301
    assert collection.apply_event("MODIFIED", at(302, "a")) == Changes(changed=(at(302, "a"),))


def test_an_object_of_another_history_is_told_though_its_version_is_the_same() -> None:
    collection = listed(1000, at(250))
    collection.replace(listing(300, at(250, uid="second")), 0.0)
    assert collection.replace(listing(300, at(250, uid="second")), 10.0) == Changes(changed=(at(250, uid="second"),))


def test_deletions_of_long_ago_are_forgotten() -> None:
    collection = listed(1)
    for number in range(5000):
        collection.apply_event("ADDED", at(2 * number + 2, f"m{number}"))
        collection.apply_event("DELETED", at(2 * number + 3, f"m{number}"))
    assert len(collection._deleted) == 1000


@given(st.randoms(use_true_random=False))
def test_in_whatever_order_and_however_often_events_come_the_last_state_is_the_same(chance: random.Random) -> None:
    last: dict[str, tuple[str, StoredObject]] = {}
    history = []
    for version in range(10, 60):
        name = chance.choice("abcd")
        gone = name in last and last[name][0] != "DELETED" and chance.random() < 0.4
        last[name] = ("DELETED" if gone else "MODIFIED", at(version, name))
        history.append(last[name])
    collection = listed(5)
    told: dict[ObjectRef, StoredObject] = {}
    for event, stored in chance.sample(history * 2, k=100):
        changes = collection.apply_event(event, stored)
        told.update((one.ref, one) for one in changes.changed)
        for ref in changes.deleted:
            del told[ref]
    assert told == {stored.ref: stored for event, stored in last.values() if event != "DELETED"}
    assert collection.version == 59


def test_of_a_status_what_nobody_reads_is_not_remembered():
    status = {"route": {"port": 1}, "verdicts": [{"rule": "Steady"}], "history": []}
    collection = Collection(SECOND_LOOK, ("route", "conditions"))
    said = [
        *collection.replace(listing(1, at(1, status=status), at(1, "b")), 0.0).changed,
        *collection.put(at(2, status=status)).changed,
        *collection.apply_event("MODIFIED", at(3, status=status)).changed,
    ]
    assert [dict(one.status) for one in said] == [
        {"route": {"port": 1}},
        {},
        {"route": {"port": 1}},
        {"route": {"port": 1}},
    ]
    assert {one.ref.name: dict(one.status) for one in collection.objects} == {"a": {"route": {"port": 1}}, "b": {}}
    assert "status" not in collection.find(ref("b")).raw
