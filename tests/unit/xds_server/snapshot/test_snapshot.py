"""A snapshot, the next one, and when it is consistent."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xds_server.snapshot.snapshot import (
    CLUSTER,
    EMPTY,
    ENDPOINT,
    LISTENER,
    MAKE_BEFORE_BREAK,
    ROUTE,
    SHORT,
    InconsistentSnapshotError,
    Resource,
    ResourceKey,
    Snapshot,
    content_version,
)


def cluster(name="c", body=b"1"):
    return Resource.of(CLUSTER, name, body)


def route(*requires, name="r"):
    return Resource.of(ROUTE, name, b"r", requires)


def test_a_version_is_that_of_the_content():
    assert cluster(body=b"1").version == cluster("other", body=b"1").version
    assert cluster(body=b"1").version != cluster(body=b"2").version
    assert len(cluster().version) == 16


def test_a_resource_is_printed_without_its_bytes():
    assert "hush" not in repr(cluster(body=b"hush"))


def test_an_empty_snapshot_has_every_type():
    assert tuple(EMPTY.by_type) == MAKE_BEFORE_BREAK
    assert set(SHORT) == set(MAKE_BEFORE_BREAK)


def test_the_next_snapshot_shares_what_did_not_change():
    before = Snapshot.of([cluster(), route()])
    after = before.with_changes([cluster(body=b"2")])
    assert after.by_type[ROUTE] is before.by_type[ROUTE]
    assert before.find(ResourceKey(CLUSTER, "c")) == cluster(body=b"1")
    assert after.find(ResourceKey(CLUSTER, "c")) == cluster(body=b"2")


def test_what_is_removed_is_gone():
    after = Snapshot.of([cluster("a"), cluster("b")]).with_changes(removed=[ResourceKey(CLUSTER, "a")])
    assert list(after.by_type[CLUSTER]) == ["b"]
    assert after.find(ResourceKey(CLUSTER, "a")) is None


def test_what_is_not_there_may_be_removed():
    assert EMPTY.with_changes(removed=[ResourceKey(CLUSTER, "a")]) == EMPTY


def test_what_is_removed_and_added_again_is_there():
    assert Snapshot.of([cluster()]).with_changes([cluster()], [cluster().key]) == Snapshot.of([cluster()])


def test_a_type_nobody_knows_has_no_resources():
    assert EMPTY.find(ResourceKey("type.googleapis.com/x", "a")) is None
    assert EMPTY.type_version("type.googleapis.com/x") == EMPTY.type_version(CLUSTER)


def test_a_snapshot_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        EMPTY.by_type = {}
    with pytest.raises(TypeError):
        EMPTY.by_type[CLUSTER] = {}
    with pytest.raises(TypeError):
        EMPTY.by_type[CLUSTER]["c"] = cluster()


def test_x08_a_version_of_a_type_changes_iff_one_of_its_resources_does():
    before = Snapshot.of([cluster(), route()])
    after = before.with_changes([cluster(body=b"2")])
    assert after.type_version(CLUSTER) != before.type_version(CLUSTER)
    assert after.type_version(ROUTE) == before.type_version(ROUTE)
    assert after.with_changes([cluster()]).type_version(CLUSTER) == before.type_version(CLUSTER)


@given(st.dictionaries(st.text(min_size=1), st.binary(), max_size=6), st.randoms(use_true_random=False))
def test_x09_the_order_of_arrival_leaves_no_trace(bodies, random):
    resources = [cluster(name, body) for name, body in bodies.items()]
    shuffled = random.sample(resources, len(resources))
    assert Snapshot.of(resources).type_version(CLUSTER) == Snapshot.of(shuffled).type_version(CLUSTER)


def test_names_and_versions_do_not_run_into_each_other():
    one, other = cluster("ab", b"1"), cluster("a", b"1")
    assert content_version({"ab": one}) != content_version({"a": other})
    assert content_version({}) != content_version({"a": other})


def test_what_is_required_must_be_there():
    Snapshot.of([route(ResourceKey(CLUSTER, "c")), cluster()]).check()
    with pytest.raises(InconsistentSnapshotError, match=r"'r'.* requires .*'c'.*, which is missing"):
        Snapshot.of([route(ResourceKey(CLUSTER, "c")), cluster("d")]).check()


def test_a_requirement_is_of_one_type():
    with pytest.raises(InconsistentSnapshotError):
        Snapshot.of([route(ResourceKey(ENDPOINT, "c")), cluster("c")]).check()
    with pytest.raises(InconsistentSnapshotError):
        Snapshot.of([route(ResourceKey(LISTENER, "r"))]).check()
