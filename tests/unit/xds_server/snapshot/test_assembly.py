"""One snapshot of what many owners bring."""

from hypothesis import given
from hypothesis import strategies as st

from xds_server.snapshot.assembly import Assembly
from xds_server.snapshot.snapshot import CLUSTER, EMPTY, Resource, Snapshot

OWN, OWN_2 = Resource.of(CLUSTER, "own", b"1"), Resource.of(CLUSTER, "own", b"2")
SHARED = Resource.of(CLUSTER, "shared", b"s")


def test_nothing_is_nothing():
    assembly = Assembly()
    assert assembly.replace([]) == frozenset()
    assert assembly.replace([("a", ())]) == frozenset()
    assert assembly.snapshot is EMPTY


def test_what_is_new_what_differs_and_what_is_gone():
    assembly = Assembly()
    assert assembly.replace([("a", (OWN,))]) == {OWN.key}
    assert assembly.replace([("a", (OWN_2,))]) == {OWN.key}
    assert assembly.snapshot.find(OWN.key) == OWN_2
    assert assembly.replace([("a", ())]) == {OWN.key}
    assert assembly.snapshot == EMPTY


def test_equal_output_is_silent():
    assembly = Assembly()
    assembly.replace([("a", (OWN,))])
    before = assembly.snapshot
    assert assembly.replace([("a", (OWN,))]) == frozenset()
    assert assembly.snapshot is before


def test_what_is_shared_stays_until_its_last_owner_leaves():
    assembly = Assembly()
    assert assembly.replace([("a", (SHARED,)), ("b", (SHARED, OWN))]) == {SHARED.key, OWN.key}
    assert assembly.owners_of([SHARED.key]) == {"a", "b"}
    assert assembly.replace([("b", ())]) == {OWN.key}
    assert assembly.snapshot.find(SHARED.key) == SHARED
    assert assembly.replace([("a", ())]) == {SHARED.key}
    assert assembly.owners_of([SHARED.key]) == frozenset()


def test_what_one_owner_hands_to_another_does_not_change():
    assembly = Assembly()
    assembly.replace([("a", (SHARED,))])
    before = assembly.snapshot
    assert assembly.replace([("a", ()), ("b", (SHARED,))]) == frozenset()
    assert assembly.snapshot is before
    assert assembly.owners_of([SHARED.key]) == {"b"}


def test_what_an_owner_brought():
    assembly = Assembly()
    assembly.replace([("a", (SHARED, OWN))])
    assert assembly.brought_by("a") == {SHARED.key: SHARED, OWN.key: OWN}
    assert assembly.brought_by("b") == {}


def test_what_passes_from_one_owner_to_another_is_that_of_who_was_the_last_to_begin():
    assembly = Assembly()
    assembly.replace([("a", (OWN,))])
    assert assembly.replace([("b", (OWN_2,))]) == {OWN.key}
    assert assembly.snapshot.find(OWN.key) == OWN_2
    # It is not taken back by one who had it before, whatever else of it changes.
    assert assembly.replace([("a", (OWN, SHARED))]) == {SHARED.key}
    assert assembly.replace([("a", ())]) == {SHARED.key}
    assert assembly.snapshot.find(OWN.key) == OWN_2


def test_an_owner_who_yields_goes_behind_one_that_began_before():
    assembly = Assembly(yields=lambda owner: owner == "b")
    assembly.replace([("a", (OWN,)), ("b", (OWN_2,))])
    assert assembly.snapshot.find(OWN.key) == OWN
    assert assembly.replace([("a", ())]) == {OWN.key}
    assert assembly.snapshot.find(OWN.key) == OWN_2


def test_what_one_owner_began_and_gives_up_is_again_that_of_the_one_before():
    assembly = Assembly()
    assembly.replace([("a", (OWN,)), ("b", (OWN_2,))])
    assert assembly.replace([("b", ())]) == {OWN.key}
    assert assembly.snapshot.find(OWN.key) == OWN


owners = st.sampled_from("abc")
# An owner's own resources change; what is shared has its content in its name, as the cluster of a backend has.
own = st.sampled_from([b"1", b"2", b"3"])
shared = st.frozensets(st.sampled_from("xyz"))
changes = st.lists(st.lists(st.tuples(owners, st.none() | own, shared), max_size=3, unique_by=lambda one: one[0]))


def brought(owner, body, names):
    mine = [Resource.of(CLUSTER, owner, body)] if body else []
    return (*mine, *(Resource.of(CLUSTER, f"backend/{name}", name.encode()) for name in sorted(names)))


@given(changes)
def test_the_snapshot_is_what_the_owners_bring_and_every_difference_is_told(steps):
    assembly, bring = Assembly(), {}
    for step in steps:
        before = assembly.snapshot
        change = [(owner, brought(owner, body, names)) for owner, body, names in step]
        told = assembly.replace(change)
        bring.update(change)
        assert assembly.snapshot == Snapshot.of(one for resources in bring.values() for one in resources)
        keys = {one.key for snapshot in (before, assembly.snapshot) for one in snapshot.by_type[CLUSTER].values()}
        assert told == {key for key in keys if before.find(key) != assembly.snapshot.find(key)}


@given(changes)
def test_independent_changes_commute(steps):
    for step in steps:
        change = [(owner, brought(owner, body, names)) for owner, body, names in step]
        at_once, one_by_one = Assembly(), Assembly()
        at_once.replace(change)
        for one in reversed(change):
            one_by_one.replace([one])
        assert at_once.snapshot == one_by_one.snapshot
