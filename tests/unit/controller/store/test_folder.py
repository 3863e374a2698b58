from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.timing import FolderTiming
from controller.store.directory.checking import FileContent, Manifest
from controller.store.directory.folder import Birth, Folder
from controller.store.directory.state import State
from controller.store.manifest.manifest import Problem
from controller.store.objects import ObjectRef
from controller.store.protocol import ConflictError

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


def birth() -> Birth:
    numbers = itertools.count()
    return Birth("2026-01-01T00:00:00Z", lambda: f"uid-{next(numbers)}")


def folder_of(**files: FileContent) -> Folder:
    folder = Folder(State(), 0, KINDS, TIMING)
    for file, content in files.items():
        folder.believe(file, content)
    folder.update(birth())
    return folder


def names_of(folder: Folder) -> set[str]:
    return {stored.ref.name for stored in folder.objects}


def test_a_loss_must_rest_longer_and_an_empty_file_the_longest() -> None:
    folder = folder_of(a=saying("x", "y"))
    assert folder.patience({"a": saying("x", "y", "z")}) == {"a": TIMING.quiet}
    assert folder.patience({"a": saying("x")}) == {"a": TIMING.losing}
    assert folder.patience({"a": None}) == {"a": TIMING.losing}
    assert folder.patience({"a": FileContent()}) == {"a": TIMING.emptied}
    assert folder.patience({"a": broken("a")}) == {"a": TIMING.quiet}


def test_what_another_file_holds_is_not_lost() -> None:
    folder = folder_of(a=saying("x", "y"), b=saying("y"))
    assert folder.patience({"a": saying("x")}) == {"a": TIMING.quiet}
    assert folder.patience({"a": None, "c": saying("x")}) == {"a": TIMING.quiet, "c": TIMING.quiet}
    assert folder.patience({"a": None, "b": None}) == {"a": TIMING.losing, "b": TIMING.losing}


def test_a_broken_file_keeps_its_manifests_and_a_fixed_one_loses_its_problems() -> None:
    folder = folder_of(a=saying("x"))
    folder.believe("a", broken("a"))
    assert folder.update(birth()) == ((), ())
    assert [str(problem) for problem in folder.problems] == ["a:1: is broken"]
    folder.believe("a", saying("y"))
    changed, deleted = folder.update(birth())
    assert ([stored.ref for stored in changed], deleted) == ([ref("y")], (ref("x"),))
    assert folder.problems == ()


def test_of_files_that_claim_one_object_at_the_start_the_first_by_path_holds_it() -> None:
    folder = folder_of(b=saying("x", port=2), a=saying("x", port=1), c=saying("x", port=3))
    (stored,) = folder.objects
    assert stored.raw["spec"] == {"port": 1}
    assert [problem.file for problem in folder.problems] == ["b", "c"]


def test_the_holder_keeps_an_object_and_the_first_by_path_takes_over() -> None:
    folder = folder_of(z=saying("x", port=26))
    folder.believe("c", saying("x", port=3))
    folder.believe("b", saying("x", port=2))
    assert folder.update(birth()) == ((), ())
    assert [problem.file for problem in folder.problems] == ["b", "c"]
    folder.believe("z", None)
    changed, deleted = folder.update(birth())
    assert ([stored.raw["spec"]["port"] for stored in changed], deleted) == ([2], ())
    assert [problem.file for problem in folder.problems] == ["c"]


def test_an_object_given_twice_in_one_file_is_the_first() -> None:
    folder = folder_of(a=FileContent((manifest("x", 1), manifest("x", 2), manifest("y"))))
    assert {stored.raw["spec"]["port"] for stored in folder.objects} == {1, 80}
    assert len(folder.problems) == 1


def test_versions_grow_beyond_what_was_remembered_and_beyond_the_clock() -> None:
    for remembered, clock in ((7, 1000), (1000, 7)):
        folder = Folder(State(version=remembered), clock, KINDS, TIMING)
        folder.believe("a", saying("x", "y"))
        changed, _ = folder.update(birth())
        assert [stored.resource_version for stored in changed] == ["1001", "1002"]


def test_an_object_that_comes_back_is_a_new_one() -> None:
    folder = folder_of(a=saying("x"))
    (first,) = folder.objects
    folder.believe("a", None)
    folder.update(birth())
    folder.believe("a", saying("x"))
    ((second,), _) = folder.update(Birth("2026-01-02T00:00:00Z", lambda: "another"))
    assert (second.metadata["uid"], second.metadata["creationTimestamp"]) == ("another", "2026-01-02T00:00:00Z")
    assert second.generation == 1
    assert int(second.resource_version) > int(first.resource_version)


def test_a_status_that_is_not_json_is_refused_and_nothing_is_written() -> None:
    folder = folder_of(a=saying("x"))
    (stored,) = folder.objects
    with pytest.raises(TypeError):
        folder.write_status(ref("x"), {"at": object()}, stored.resource_version)
    assert list(folder.objects) == [stored]


def test_an_equal_status_of_an_older_version_is_still_a_conflict() -> None:
    folder = folder_of(a=saying("x"))
    (stored,) = folder.objects
    folder.write_status(ref("x"), {"n": 1}, stored.resource_version)
    with pytest.raises(ConflictError):
        folder.write_status(ref("x"), {"n": 1}, stored.resource_version)


FILES = st.dictionaries(
    st.sampled_from("abc"),
    st.one_of(st.none(), st.just(broken("?")), st.lists(st.sampled_from("xyz"), max_size=3).map(lambda n: saying(*n))),
    max_size=3,
)


@given(st.lists(FILES, max_size=6))
def test_whatever_happens_objects_follow_from_the_files_and_changes_tell_them(history: list[dict[str, Any]]) -> None:
    folder = Folder(State(), 0, KINDS, TIMING)
    good: dict[str, set[str]] = {}
    told: dict[ObjectRef, str] = {}
    for files in history:
        for file, content in files.items():
            folder.believe(file, content)
            if content is None or not content.problems:
                good[file] = {m.ref.name for m in content.manifests} if content else set()
        changed, deleted = folder.update(birth())
        assert not {stored.ref for stored in changed} & set(deleted)
        for gone in deleted:
            del told[gone]
        told |= {stored.ref: stored.resource_version for stored in changed}
        assert names_of(folder) == set().union(*good.values())
        assert told == {stored.ref: stored.resource_version for stored in folder.objects}
