"""What every ObjectStore promises. A store's tests inherit `StoreContract` and provide the fixture `stage`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import pytest

from controller.store.objects import ObjectRef
from controller.store.protocol import ConflictError, NotFoundError, ObjectStore
from tests.support.manifests import make_model, make_object, model
from tests.support.reader import Reader


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
        await stage.store.patch_status(a, {"memory": {"ready": True}}, before.resource_version)
        after = await reader.until_field(a, "status", {"memory": {"ready": True}})
        assert after.generation == before.generation
        assert after.resource_version != before.resource_version

    async def test_a_status_is_replaced_as_a_whole(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        await stage.store.patch_status(a, {"memory": {"old": 1, "both": 1}}, stored.resource_version)
        stored = await reader.until_field(a, "status", {"memory": {"old": 1, "both": 1}})
        await stage.store.patch_status(a, {"memory": {"both": 2}}, stored.resource_version)
        await reader.until_field(a, "status", {"memory": {"both": 2}})

    async def test_a_status_survives_a_change_of_the_spec(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        await stage.store.patch_status(a, {"memory": {"ready": True}}, stored.resource_version)
        await stage.apply(make_model("a", stage.home, "two"))
        after = await reader.until_environment(a, "two")
        assert after.status == {"memory": {"ready": True}}

    async def test_a_writer_who_read_an_older_version_is_refused(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        await stage.store.patch_status(a, {"memory": {"by": "first"}}, stored.resource_version)
        with pytest.raises(ConflictError):
            await stage.store.patch_status(a, {"memory": {"by": "second"}}, stored.resource_version)
        await reader.until_field(a, "status", {"memory": {"by": "first"}})

    async def test_the_status_of_an_object_that_is_gone_is_refused(self, stage: Stage, a: ObjectRef) -> None:
        await Reader(stage.store, "ModelDeployment").next()
        with pytest.raises(NotFoundError):
            await stage.store.patch_status(a, {}, "1")

    async def test_an_equal_status_writes_nothing(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        await stage.store.patch_status(a, {"memory": {"n": [1, {"m": 2}]}}, stored.resource_version)
        stored = await reader.until_field(a, "status", {"memory": {"n": [1, {"m": 2}]}})
        await stage.store.patch_status(a, {"memory": {"n": [1, {"m": 2}]}}, stored.resource_version)
        # No conflict: it is unchanged.
        await stage.store.patch_status(a, {"memory": {"n": 3}}, stored.resource_version)
        await reader.until_field(a, "status", {"memory": {"n": 3}})

    async def test_the_writer_may_go_on_to_change_what_it_wrote(self, stage: Stage, a: ObjectRef) -> None:
        await stage.apply(make_model("a", stage.home))
        reader = Reader(stage.store, "ModelDeployment")
        stored = await reader.until_seen(a)
        status = {"memory": {"seen": ["one"]}}
        await stage.store.patch_status(a, status, stored.resource_version)
        status["memory"]["seen"].append("two")
        await reader.until_field(a, "status", {"memory": {"seen": ["one"]}})
