from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.timing import FolderTiming
from controller.store.directory.checking import FileContent, Manifest
from controller.store.directory.folder import Folder
from controller.store.directory.objects import Creation, ObjectTable
from controller.store.directory.state import StoreState
from controller.store.manifest.manifest import Problem
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import ConflictError
from tests.support.store import at

TIMING = FolderTiming(quiet=0.1, together=0.5, losing=0.4, emptied=1.0, look_again=0.03)

KINDS = {("v1", "Service"): lambda raw: ()}


def ref(name: str) -> ObjectRef:
    return ObjectRef("Service", "default", name)


def saying(*names: str, port: int = 80) -> FileContent:
    return FileContent(tuple(manifest(name, port) for name in names))


def manifest(name: str, port: int = 80) -> Manifest:
    metadata = {"name": name, "namespace": "default"}
    raw: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"port": port}}
    return Manifest(ref(name), raw, 1)


def broken(file: str) -> FileContent:
    return FileContent(problems=(Problem(file, 1, "", "is broken"),))


def creation() -> Creation:
    numbers = itertools.count()
    return Creation("2026-01-01T00:00:00Z", lambda: f"uid-{next(numbers)}")


class Objects:
    """A folder and the objects that follow from it."""

    def __init__(self, version: int = 0, least_version: int = 0) -> None:
        self.folder = Folder({}, KINDS, TIMING)
        self.table = ObjectTable(StoreState(version), least_version, KINDS)
        self.accept = self.folder.accept

    def __iter__(self) -> Iterator[StoredObject]:
        return iter(self.table.objects)

    def update(self, new: Creation | None = None) -> tuple[tuple[StoredObject, ...], tuple[ObjectRef, ...]]:
        """Take in what the files say now; give what changed and what is gone."""
        redefinition = self.table.define(self.folder.define(), new or creation())
        return redefinition.changed, redefinition.deleted


def objects_of(**files: FileContent) -> Objects:
    objects = Objects()
    for file, content in files.items():
        objects.accept(file, content)
    objects.update()
    return objects


def names_of(objects: Objects) -> set[str]:
    return {stored.ref.name for stored in objects}


def test_a_loss_must_rest_longer_and_an_empty_file_the_longest() -> None:
    objects = objects_of(a=saying("x", "y"))
    assert objects.folder.quiet_periods({"a": saying("x", "y", "z")}) == {"a": TIMING.quiet}
    assert objects.folder.quiet_periods({"a": saying("x")}) == {"a": TIMING.losing}
    assert objects.folder.quiet_periods({"a": None}) == {"a": TIMING.losing}
    assert objects.folder.quiet_periods({"a": FileContent()}) == {"a": TIMING.emptied}
    assert objects.folder.quiet_periods({"a": broken("a")}) == {"a": TIMING.quiet}


def test_what_another_file_holds_is_not_lost() -> None:
    objects = objects_of(a=saying("x", "y"), b=saying("y"))
    assert objects.folder.quiet_periods({"a": saying("x")}) == {"a": TIMING.quiet}
    assert objects.folder.quiet_periods({"a": None, "c": saying("x")}) == {"a": TIMING.quiet, "c": TIMING.quiet}
    assert objects.folder.quiet_periods({"a": None, "b": None}) == {"a": TIMING.losing, "b": TIMING.losing}


def test_a_broken_file_keeps_its_manifests_and_a_fixed_one_loses_its_problems() -> None:
    objects = objects_of(a=saying("x"))
    objects.accept("a", broken("a"))
    assert objects.update() == ((), ())
    assert [str(problem) for problem in objects.folder.problems] == ["a:1: is broken"]
    objects.accept("a", saying("y"))
    changed, deleted = objects.update()
    assert ([stored.ref for stored in changed], deleted) == ([ref("y")], (ref("x"),))
    assert objects.folder.problems == ()


def test_of_files_that_claim_one_object_at_the_start_the_first_by_path_holds_it() -> None:
    objects = objects_of(b=saying("x", port=2), a=saying("x", port=1), c=saying("x", port=3))
    (stored,) = objects
    assert stored.raw["spec"] == {"port": 1}
    assert [problem.file for problem in objects.folder.problems] == ["b", "c"]


def test_the_holder_keeps_an_object_and_the_first_by_path_takes_over() -> None:
    objects = objects_of(z=saying("x", port=26))
    objects.accept("c", saying("x", port=3))
    objects.accept("b", saying("x", port=2))
    assert objects.update() == ((), ())
    assert [problem.file for problem in objects.folder.problems] == ["b", "c"]
    objects.accept("z", None)
    changed, deleted = objects.update()
    assert ([stored.raw["spec"]["port"] for stored in changed], deleted) == ([2], ())
    assert [problem.file for problem in objects.folder.problems] == ["c"]


def test_an_object_given_twice_in_one_file_is_the_first() -> None:
    objects = objects_of(a=FileContent((manifest("x", 1), manifest("x", 2), manifest("y"))))
    assert {stored.raw["spec"]["port"] for stored in objects} == {1, 80}
    assert len(objects.folder.problems) == 1


def test_versions_grow_beyond_what_was_remembered_and_beyond_the_clock() -> None:
    for remembered, clock in ((7, 1000), (1000, 7)):
        objects = Objects(remembered, clock)
        objects.accept("a", saying("x", "y"))
        changed, _ = objects.update()
        assert [stored.resource_version for stored in changed] == ["1001", "1002"]


def test_an_object_that_comes_back_is_a_new_one() -> None:
    objects = objects_of(a=saying("x"))
    (first,) = objects
    objects.accept("a", None)
    objects.update()
    objects.accept("a", saying("x"))
    ((second,), _) = objects.update(Creation("2026-01-02T00:00:00Z", lambda: "another"))
    assert (second.metadata["uid"], second.metadata["creationTimestamp"]) == ("another", "2026-01-02T00:00:00Z")
    assert second.generation == 1
    assert int(second.resource_version) > int(first.resource_version)


def test_a_status_that_is_not_json_is_refused_and_nothing_is_written() -> None:
    objects = objects_of(a=saying("x"))
    (stored,) = objects
    with pytest.raises(TypeError):
        objects.table.write_status(ref("x"), {"at": object()}, at(stored.resource_version))
    assert list(objects) == [stored]


def test_an_equal_status_of_an_older_version_is_still_a_conflict() -> None:
    objects = objects_of(a=saying("x"))
    (stored,) = objects
    objects.table.write_status(ref("x"), {"n": 1}, at(stored.resource_version))
    with pytest.raises(ConflictError):
        objects.table.write_status(ref("x"), {"n": 1}, at(stored.resource_version))


FILES = st.dictionaries(
    st.sampled_from("abc"),
    st.one_of(st.none(), st.just(broken("?")), st.lists(st.sampled_from("xyz"), max_size=3).map(lambda n: saying(*n))),
    max_size=3,
)


@given(st.lists(FILES, max_size=6))
def test_whatever_happens_objects_follow_from_the_files_and_changes_tell_them(history: list[dict[str, Any]]) -> None:
    objects = Objects()
    good: dict[str, set[str]] = {}
    told: dict[ObjectRef, str] = {}
    for files in history:
        for file, content in files.items():
            objects.accept(file, content)
            if content is None or not content.problems:
                good[file] = {m.ref.name for m in content.manifests} if content else set()
        changed, deleted = objects.update()
        assert not {stored.ref for stored in changed} & set(deleted)
        for gone in deleted:
            del told[gone]
        told |= {stored.ref: stored.resource_version for stored in changed}
        assert names_of(objects) == set().union(*good.values())
        assert told == {stored.ref: stored.resource_version for stored in objects}
