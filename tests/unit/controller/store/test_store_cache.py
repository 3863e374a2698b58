from __future__ import annotations

from controller.store.cache import Cache
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch


def make_slice(name: str, service: str | None = None, version: int = 1, namespace: str = "default") -> StoredObject:
    labels = {} if service is None else {"kubernetes.io/service-name": service}
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version), "labels": labels}
    return StoredObject(ObjectRef("EndpointSlice", namespace, name), {"metadata": metadata})


def test_a_complete_batch_is_compared_with_what_is_held() -> None:
    cache = Cache()
    a, b, c = make_slice("a"), make_slice("b"), make_slice("c")
    assert cache.apply(Batch((a, b), complete=True)) == {a.ref, b.ref}
    changed = make_slice("b", version=2)
    assert cache.apply(Batch((changed, c), complete=True)) == {a.ref, b.ref, c.ref}
    assert cache.find(a.ref) is None
    assert cache.find(b.ref) is changed
    assert cache.apply(Batch((changed, c), complete=True)) == frozenset()


def test_an_object_of_the_same_version_is_not_changed() -> None:
    cache = Cache()
    cache.apply(Batch((make_slice("a"),), complete=True))
    assert cache.apply(Batch((make_slice("a"),))) == frozenset()
    assert cache.apply(Batch((make_slice("a", version=2),))) == {make_slice("a").ref}


def test_what_is_gone_is_changed_once() -> None:
    cache = Cache()
    ref = make_slice("a").ref
    cache.apply(Batch((make_slice("a"),), complete=True))
    assert cache.apply(Batch(deleted=(ref,))) == {ref}
    assert cache.apply(Batch(deleted=(ref,))) == frozenset()
    assert dict(cache.objects("EndpointSlice")) == {}


def test_the_slices_of_a_service_follow_its_label_in_its_namespace() -> None:
    cache = Cache()
    cache.apply(Batch((make_slice("b", "s"), make_slice("a", "s"), make_slice("c", "s", 1, "other"), make_slice("d"))))
    assert [stored.ref.name for stored in cache.slices_of("default", "s")] == ["a", "b"]
    cache.apply(Batch((make_slice("a", "t", version=2),), deleted=(make_slice("b").ref,)))
    assert cache.slices_of("default", "s") == ()
    assert [stored.ref.name for stored in cache.slices_of("default", "t")] == ["a"]
    assert [stored.ref.name for stored in cache.slices_of("other", "s")] == ["c"]


def test_the_label_on_another_kind_means_nothing() -> None:
    cache = Cache()
    stored = StoredObject(ObjectRef("Pod", "default", "a"), make_slice("a", "s").raw)
    cache.apply(Batch((stored,)))
    assert cache.slices_of("default", "s") == ()
    assert list(cache.objects("Pod")) == [stored.ref]
