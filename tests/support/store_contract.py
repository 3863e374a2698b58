"""What every ObjectStore promises. A store's tests inherit `StoreContract` and provide the fixture `stage`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pytest

from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import (
    AlreadyExistsError,
    ConflictError,
    FieldConflict,
    FieldConflictError,
    NotFoundError,
    ObjectStore,
    Precondition,
    RefusedError,
)
from tests.support.manifests import make_model, make_object, model
from tests.support.reader import Reader
from tests.support.store import at


class Stage(Protocol):
    """A store of ModelDeployments and Secrets in two namespaces, and the hand of a user who changes them."""

    store: ObjectStore
    home: str
    away: str

    async def apply(self, *objects: Mapping[str, Any]) -> None: ...

    async def remove(self, *objects: Mapping[str, Any]) -> None: ...


class StoreContract:
    @pytest.fixture
    def a(self, stage: Stage) -> ObjectRef:
        return model("a", stage.home)

    async def test_the_first_batch_is_complete(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home), make_model("b", stage.away))
        reader = Reader(stage.store, "ModelDeployment")
        await reader.until(lambda cache: len(cache.objects("ModelDeployment")) == 2)
        again = Reader(stage.store, "ModelDeployment")
        batch = await again.next()
        assert batch.complete
        assert {stored.ref for stored in batch.changed} == {a, model("b", stage.away)}

    async def test_the_first_batch_of_an_empty_store_is_complete_and_empty(self, stage: Stage) -> None:
        batch = await Reader(stage.store, "ModelDeployment").next()
        assert (batch.complete, batch.changed, batch.deleted) == (True, (), ())

    async def test_an_object_has_what_the_api_server_gives_it(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        stored = await Reader(stage.store, "ModelDeployment").until_seen(a)
        assert stored.generation == 1
        assert stored.status == {}
        assert isinstance(stored.metadata["resourceVersion"], str)
        assert stored.metadata["uid"]
        assert stored.metadata["creationTimestamp"].endswith("Z")
        assert stored.raw["spec"]["environment"] == "one"

    async def test_a_change_of_the_spec_grows_generation_and_version_and_keeps_the_identity(
        self, stage: Stage, a: ObjectRef
    ) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        before = await reader.until_seen(a)
        await stage.apply(make_model("a", stage.home, "two"))
        after = await reader.until_environment(a, "two")
        assert after.generation == before.generation + 1
        assert after.resource_version != before.resource_version
        assert after.metadata["uid"] == before.metadata["uid"]
        assert after.metadata["creationTimestamp"] == before.metadata["creationTimestamp"]

    async def test_a_change_of_labels_keeps_the_generation(self, stage: Stage, a: ObjectRef) -> None:
        raw = make_model("a", stage.home)
        await stage.apply(raw)
        reader = Reader(stage.store, "ModelDeployment")
        before = await reader.until_seen(a)
        await stage.apply(raw | {"metadata": raw["metadata"] | {"labels": {"team": "x"}}})
        await reader.until(lambda cache: cache.find(a).metadata.get("labels") == {"team": "x"})
        after = reader.find(a)
        assert after.generation == before.generation
        assert after.resource_version != before.resource_version

    async def test_a_removed_object_is_told_and_a_new_one_of_its_name_is_another(
        self, stage: Stage, a: ObjectRef
    ) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        first = await reader.until_seen(a)
        await stage.remove(make_model("a", stage.home))
        await reader.until_gone(a)
        await stage.apply(make_model("a", stage.home))
        second = await reader.until_seen(a)
        assert second.metadata["uid"] != first.metadata["uid"]

    async def test_a_watch_tells_only_of_its_kinds(self, stage: Stage) -> None:
        await stage.apply(make_model("a", stage.home), make_object("Secret", "a", stage.home))
        both, models = Reader(stage.store, "Secret", "ModelDeployment"), Reader(stage.store, "ModelDeployment")
        await both.until(lambda cache: cache.objects("Secret") and cache.objects("ModelDeployment"))
        await models.until(lambda cache: cache.objects("ModelDeployment"))
        await stage.apply(make_object("Secret", "b", stage.home), make_model("b", stage.home))
        await models.until(lambda cache: len(cache.objects("ModelDeployment")) == 2)
        assert not models.cache.objects("Secret")

    async def test_a_slow_reader_gets_the_newest_state_only_and_delays_nobody(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home), make_model("b", stage.home))
        slow, quick = Reader(stage.store, "ModelDeployment"), Reader(stage.store, "ModelDeployment")
        for reader in (slow, quick):
            await reader.until(lambda cache: len(cache.objects("ModelDeployment")) == 2)
        for environment in ("two", "three", "four"):
            await stage.apply(make_model("a", stage.home, environment))
            await quick.until_environment(a, environment)
        await stage.remove(make_model("b", stage.home))
        await quick.until_gone(model("b", stage.home))
        batch = await slow.next()
        assert [stored.raw["spec"]["environment"] for stored in batch.changed] == ["four"]
        assert batch.deleted == (model("b", stage.home),)
        assert not batch.complete

    async def test_a_cancelled_read_loses_nothing(self, stage: Stage, a: ObjectRef) -> None:
        reader = Reader(stage.store, "ModelDeployment")
        await reader.next()
        read = asyncio.create_task(anext(reader.watch))
        await asyncio.sleep(0)
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
        await stage.apply(make_model("a", stage.home))
        await reader.until_seen(a)

    async def test_a_written_status_comes_back_and_keeps_the_generation(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        before = await reader.until_seen(a)
        await stage.store.patch_status(a, {"memory": {"ready": True}}, at(before.resource_version))
        after = await reader.until_field(a, "status", {"memory": {"ready": True}})
        assert after.generation == before.generation
        assert after.resource_version != before.resource_version

    async def test_a_status_is_replaced_as_a_whole(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        await stage.store.patch_status(a, {"memory": {"old": 1, "both": 1}}, at(stored.resource_version))
        stored = await reader.until_field(a, "status", {"memory": {"old": 1, "both": 1}})
        await stage.store.patch_status(a, {"memory": {"both": 2}}, at(stored.resource_version))
        await reader.until_field(a, "status", {"memory": {"both": 2}})

    async def test_a_status_survives_a_change_of_the_spec(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        await stage.store.patch_status(a, {"memory": {"ready": True}}, at(stored.resource_version))
        await stage.apply(make_model("a", stage.home, "two"))
        after = await reader.until_environment(a, "two")
        assert after.status == {"memory": {"ready": True}}

    async def test_a_writer_who_read_an_older_version_is_refused(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        await stage.store.patch_status(a, {"memory": {"by": "first"}}, at(stored.resource_version))
        with pytest.raises(ConflictError):
            await stage.store.patch_status(a, {"memory": {"by": "second"}}, at(stored.resource_version))
        await reader.until_field(a, "status", {"memory": {"by": "first"}})

    async def test_the_status_of_an_object_that_is_gone_is_refused(self, stage: Stage, a: ObjectRef) -> None:
        await Reader(stage.store, "ModelDeployment").next()
        with pytest.raises(NotFoundError):
            await stage.store.patch_status(a, {}, at("1"))

    async def test_an_equal_status_writes_nothing(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        await stage.store.patch_status(a, {"memory": {"n": [1, {"m": 2}]}}, at(stored.resource_version))
        stored = await reader.until_field(a, "status", {"memory": {"n": [1, {"m": 2}]}})
        await stage.store.patch_status(a, {"memory": {"n": [1, {"m": 2}]}}, at(stored.resource_version))
        # No conflict: it is unchanged.
        await stage.store.patch_status(a, {"memory": {"n": 3}}, at(stored.resource_version))
        await reader.until_field(a, "status", {"memory": {"n": 3}})

    async def test_the_writer_may_go_on_to_change_what_it_wrote(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        status = {"memory": {"seen": ["one"]}}
        await stage.store.patch_status(a, status, at(stored.resource_version))
        status["memory"]["seen"].append("two")
        await reader.until_field(a, "status", {"memory": {"seen": ["one"]}})

    async def test_a_status_is_written_without_a_precondition_too(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        first = await stage.store.patch_status(a, {"memory": {"n": 1}}, Precondition(uid=stored.uid))
        assert (first.status, first.generation) == ({"memory": {"n": 1}}, stored.generation)
        again = await stage.store.patch_status(a, {"memory": {"n": 1}})
        assert again.resource_version == first.resource_version
        assert (await stage.store.patch_status(a, {"memory": {"n": 2}})).status == {"memory": {"n": 2}}
        await reader.until_field(a, "status", {"memory": {"n": 2}})

    async def test_the_status_of_another_object_of_the_name_is_refused(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        await Reader(stage.store, "ModelDeployment").until_seen(a)
        with pytest.raises(ConflictError):
            await stage.store.patch_status(a, {"memory": {"n": 1}}, Precondition(uid="of-another"))
        assert (await stage.store.read(a)).status == {}

    # Objects that programs write.

    @pytest.fixture
    async def created(self, stage: Stage) -> Created:
        """A reader, and an object that a program created."""
        reader = Reader(stage.store, "ModelDeployment")
        await reader.next()
        raw = make_model("a", stage.home)
        raw["metadata"]["labels"] = {"team": "x", "app": "y"}
        return Created(stage.store, reader, await stage.store.create(raw))

    async def test_a_created_object_is_what_the_api_server_makes_of_it(self, created: Created) -> None:
        stored = created.stored
        assert (stored.generation, stored.status) == (1, {})
        assert stored.uid
        assert stored.metadata["creationTimestamp"].endswith("Z")
        assert stored.raw["spec"]["environment"] == "one"
        seen = await created.reader.until_seen(stored.ref)
        assert (seen.uid, seen.resource_version) == (stored.uid, stored.resource_version)
        read = await created.store.read(stored.ref)
        assert (read.uid, read.resource_version) == (stored.uid, stored.resource_version)

    async def test_what_is_there_is_not_created(self, stage: Stage, created: Created) -> None:
        await stage.apply(make_model("b", stage.home))
        await created.reader.until_seen(model("b", stage.home))
        for name in "ab":
            with pytest.raises(AlreadyExistsError, match="exists"):
                await stage.store.create(make_model(name, stage.home, "two"))
            assert (await stage.store.read(model(name, stage.home))).raw["spec"]["environment"] == "one"

    async def test_a_name_that_the_api_server_refuses_is_refused(self, stage: Stage) -> None:
        await Reader(stage.store, "ModelDeployment").next()
        with pytest.raises(RefusedError, match=r"metadata\.name"):
            await stage.store.create(make_model("A_b", stage.home))

    async def test_a_status_is_not_created_with_an_object_nor_taken_from_it(self, stage: Stage, a: ObjectRef) -> None:
        await Reader(stage.store, "ModelDeployment").next()
        raw = make_model("a", stage.home) | {"status": {"memory": {"n": 1}}}
        assert (await stage.store.create(raw)).status == {}
        await stage.store.patch_status(a, {"memory": {"n": 2}})
        assert (await stage.store.patch(a, {"status": {"memory": {"n": 3}}})).status == {"memory": {"n": 2}}
        assert (await stage.store.apply(raw, "one", force=True)).status == {"memory": {"n": 2}}

    async def test_an_update_replaces_all_but_identity_and_status(self, stage: Stage, created: Created) -> None:
        ref = created.stored.ref
        stored = await stage.store.patch_status(ref, {"memory": {"n": 1}})
        after = await stage.store.update(make_model("a", stage.home, "two"), at(stored.resource_version))
        assert (after.uid, after.generation) == (stored.uid, 2)
        assert after.raw["spec"]["environment"] == "two"
        assert not after.metadata.get("labels")
        assert after.status == {"memory": {"n": 1}}
        await created.reader.until_environment(ref, "two")

    async def test_an_update_of_what_changed_or_is_another_or_gone_is_refused(
        self, stage: Stage, created: Created
    ) -> None:
        before, raw = created.stored, make_model("a", stage.home, "two")
        after = await stage.store.patch(before.ref, {"metadata": {"labels": {"team": "z"}}})
        with pytest.raises(ConflictError):
            await stage.store.update(raw, at(before.resource_version))
        with pytest.raises(ConflictError):
            await stage.store.update(raw, Precondition("of-another", after.resource_version))
        with pytest.raises(NotFoundError):
            await stage.store.update(make_model("b", stage.home), at(after.resource_version))
        assert (await stage.store.read(before.ref)).resource_version == after.resource_version

    async def test_a_patch_merges_and_a_null_removes(self, created: Created) -> None:
        ref = created.stored.ref
        changes = {"metadata": {"labels": {"team": None, "new": "n"}}, "spec": {"environment": "two"}}
        after = await created.store.patch(ref, changes)
        assert after.metadata["labels"] == {"app": "y", "new": "n"}
        assert after.raw["spec"] == created.stored.raw["spec"] | {"environment": "two"}
        assert (after.uid, after.generation) == (created.stored.uid, 2)
        assert (await created.reader.until_environment(ref, "two")).metadata["labels"] == {"app": "y", "new": "n"}

    async def test_a_patch_of_what_changed_or_is_another_or_gone_is_refused(
        self, stage: Stage, created: Created
    ) -> None:
        before, changes = created.stored, {"spec": {"environment": "two"}}
        after = await stage.store.patch(before.ref, {"metadata": {"labels": {"team": "z"}}}, unchanged(before))
        for precondition in (at(before.resource_version), Precondition(uid="of-another")):
            with pytest.raises(ConflictError):
                await stage.store.patch(before.ref, changes, precondition)
        with pytest.raises(NotFoundError):
            await stage.store.patch(model("b", stage.home), changes)
        assert (await stage.store.read(before.ref)).resource_version == after.resource_version

    async def test_what_changes_nothing_writes_nothing(self, created: Created) -> None:
        before = created.stored
        patched = await created.store.patch(before.ref, {"spec": {"environment": "one"}})
        assert patched.resource_version == before.resource_version
        updated = await created.store.update(await whole(created), at(before.resource_version))
        assert updated.resource_version == before.resource_version

    async def test_who_wrote_an_object_may_go_on_to_change_it(self, stage: Stage) -> None:
        await Reader(stage.store, "ModelDeployment").next()
        raw = make_model("a", stage.home)
        stored = await stage.store.create(raw)
        raw["spec"]["environment"] = "changed"
        assert (await stage.store.read(stored.ref)).raw["spec"]["environment"] == "one"

    async def test_an_apply_creates_and_what_is_not_applied_any_more_goes(self, stage: Stage, a: ObjectRef) -> None:
        reader = Reader(stage.store, "ModelDeployment")
        await reader.next()
        first = await stage.store.apply(labelled(stage, team="x", app="y"), "one")
        assert first.metadata["labels"] == {"team": "x", "app": "y"}
        again = await stage.store.apply(labelled(stage, team="x", app="y"), "one")
        assert again.resource_version == first.resource_version
        second = await stage.store.apply(labelled(stage, app="z"), "one", precondition=unchanged(first))
        assert second.metadata["labels"] == {"app": "z"}
        assert (second.uid, second.generation) == (first.uid, 1)
        await reader.until_seen(a)
        await reader.until(lambda cache: cache.find(a).metadata["labels"] == {"app": "z"})

    async def test_of_two_who_apply_each_keeps_its_fields(self, stage: Stage, a: ObjectRef) -> None:
        await Reader(stage.store, "ModelDeployment").next()
        await stage.store.apply(labelled(stage, team="x"), "one")
        both = await stage.store.apply(only_labels(stage, app="y", team="x"), "two")
        assert both.metadata["labels"] == {"team": "x", "app": "y"}
        one_less = await stage.store.apply(labelled(stage), "one")
        assert one_less.metadata["labels"] == {"team": "x", "app": "y"}, "the other one says so, too"
        none = await stage.store.apply(only_labels(stage), "two")
        assert not none.metadata.get("labels")

    async def test_who_applies_what_is_anothers_is_told_whose_it_is_or_takes_it_by_force(
        self, stage: Stage, a: ObjectRef
    ) -> None:
        await Reader(stage.store, "ModelDeployment").next()
        before = await stage.store.apply(labelled(stage, team="x"), "one")
        with pytest.raises(FieldConflictError, match=r'"one".*\.metadata\.labels\.team') as refused:
            await stage.store.apply(only_labels(stage, team="y"), "two")
        assert refused.value.conflicts == (FieldConflict("one", ".metadata.labels.team"),)
        assert (await stage.store.read(a)).resource_version == before.resource_version
        forced = await stage.store.apply(only_labels(stage, team="y"), "two", force=True)
        assert forced.metadata["labels"] == {"team": "y"}
        with pytest.raises(FieldConflictError) as refused:
            await stage.store.apply(labelled(stage, team="x"), "one")
        assert refused.value.conflicts == (FieldConflict("two", ".metadata.labels.team"),)

    async def test_a_field_that_was_patched_is_no_longer_whose_it_was(self, stage: Stage, a: ObjectRef) -> None:
        await Reader(stage.store, "ModelDeployment").next()
        await stage.store.apply(labelled(stage, team="x"), "one")
        await stage.store.patch(a, {"metadata": {"labels": {"team": "y"}}})
        with pytest.raises(FieldConflictError) as refused:
            await stage.store.apply(labelled(stage, team="x"), "one")
        assert refused.value.conflicts == (FieldConflict("beamlit-controller", ".metadata.labels.team"),)
        left = await stage.store.apply(labelled(stage), "one")
        assert left.metadata["labels"] == {"team": "y"}

    async def test_who_gives_up_its_fields_is_in_nobodys_way(self, stage: Stage, a: ObjectRef) -> None:
        await Reader(stage.store, "ModelDeployment").next()
        await stage.store.apply(labelled(stage, team="x"), "one")
        patched = await stage.store.patch(a, {"metadata": {"labels": {"team": "y"}}})
        released = await stage.store.release_fields(a, Precondition.unchanged(patched))
        assert released.metadata["labels"] == {"team": "y"}
        again = await stage.store.release_fields(a)
        assert again.resource_version == released.resource_version
        applied = await stage.store.apply(labelled(stage, team="x"), "one")
        assert applied.metadata["labels"] == {"team": "x"}
        with pytest.raises(ConflictError):
            await stage.store.release_fields(a, Precondition.unchanged(patched))

    async def test_an_apply_to_what_changed_or_is_another_or_gone_is_refused(
        self, stage: Stage, created: Created
    ) -> None:
        before = created.stored
        after = await stage.store.patch(before.ref, {"spec": {"environment": "two"}})
        for precondition in (at(before.resource_version), Precondition(uid="of-another"), unchanged(before)):
            with pytest.raises(ConflictError):
                await stage.store.apply(only_labels(stage, team="z"), force=True, precondition=precondition)
            gone = only_labels(stage, team="z") | {"metadata": {"namespace": stage.home, "name": "b"}}
            with pytest.raises(ConflictError):
                await stage.store.apply(gone, force=True, precondition=precondition)
        assert (await stage.store.read(before.ref)).resource_version == after.resource_version

    async def test_a_deleted_object_is_gone_and_a_new_one_of_its_name_is_another(
        self, stage: Stage, created: Created
    ) -> None:
        await stage.store.delete(created.stored.ref)
        await created.reader.until_gone(created.stored.ref)
        with pytest.raises(NotFoundError):
            await stage.store.read(created.stored.ref)
        with pytest.raises(NotFoundError):
            await stage.store.delete(created.stored.ref)
        again = await stage.store.create(make_model("a", stage.home))
        assert again.uid != created.stored.uid
        assert again.generation == 1

    async def test_what_changed_or_is_another_is_not_deleted(self, created: Created) -> None:
        before = created.stored
        after = await created.store.patch(before.ref, {"spec": {"environment": "two"}})
        for precondition in (at(before.resource_version), Precondition(uid="of-another"), unchanged(before)):
            with pytest.raises(ConflictError):
                await created.store.delete(before.ref, precondition)
        await created.store.delete(before.ref, unchanged(after))
        await created.reader.until_gone(before.ref)


unchanged = Precondition.unchanged


@dataclass
class Created:
    store: ObjectStore
    reader: Reader
    stored: StoredObject


async def whole(created: Created) -> Mapping[str, Any]:
    return (await created.store.read(created.stored.ref)).raw


def labelled(stage: Stage, **labels: str) -> dict[str, Any]:
    raw = make_model("a", stage.home)
    raw["metadata"]["labels"] = labels
    return raw


def only_labels(stage: Stage, **labels: str) -> dict[str, Any]:
    """All that somebody has to say who says nothing but these labels."""
    return {name: value for name, value in labelled(stage, **labels).items() if name != "spec"}
