"""What every ObjectStore promises. A store's tests inherit `StoreContract` and provide the fixture `stage`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Protocol

import pytest
from manifests import make_object, make_service, service
from reader import Reader

from controller.store.protocol import ConflictError, NotFoundError, ObjectStore


class Stage(Protocol):
    """A store, and the hand of a user who changes what is in it."""

    store: ObjectStore

    async def apply(self, *objects: Mapping[str, Any]) -> None: ...

    async def remove(self, *objects: Mapping[str, Any]) -> None: ...


class StoreContract:
    async def test_the_first_batch_is_complete(self, stage: Stage) -> None:
        await stage.apply(make_service("a"), make_service("b", "team"))
        reader = Reader(stage.store)
        await reader.until(lambda cache: len(cache.objects("Service")) == 2)
        again = Reader(stage.store)
        batch = await again.next()
        assert batch.complete
        assert {stored.ref for stored in batch.changed} == {service("a"), service("b", "team")}

    async def test_the_first_batch_of_an_empty_store_is_complete_and_empty(self, stage: Stage) -> None:
        batch = await Reader(stage.store).next()
        assert (batch.complete, batch.changed, batch.deleted) == (True, (), ())

    async def test_an_object_has_what_the_api_server_gives_it(self, stage: Stage) -> None:
        await stage.apply(make_service("a"))
        stored = await Reader(stage.store).until_seen(service("a"))
        assert stored.generation == 1
        assert stored.status == {}
        assert isinstance(stored.metadata["resourceVersion"], str)
        assert stored.metadata["uid"]
        assert stored.metadata["creationTimestamp"].endswith("Z")
        assert stored.raw["spec"] == {"port": 80}

    async def test_a_change_of_the_spec_grows_generation_and_version_and_keeps_the_identity(self, stage: Stage) -> None:
        await stage.apply(make_service("a"))
        reader = Reader(stage.store)
        before = await reader.until_seen(service("a"))
        await stage.apply(make_service("a", port=81))
        after = await reader.until_field(service("a"), "spec", {"port": 81})
        assert after.generation == before.generation + 1
        assert after.resource_version != before.resource_version
        assert after.metadata["uid"] == before.metadata["uid"]
        assert after.metadata["creationTimestamp"] == before.metadata["creationTimestamp"]

    async def test_a_change_of_labels_keeps_the_generation(self, stage: Stage) -> None:
        raw = make_service("a")
        await stage.apply(raw)
        reader = Reader(stage.store)
        before = await reader.until_seen(service("a"))
        await stage.apply(raw | {"metadata": raw["metadata"] | {"labels": {"team": "x"}}})
        await reader.until(lambda cache: cache.find(service("a")).metadata.get("labels") == {"team": "x"})
        after = reader.find(service("a"))
        assert after.generation == before.generation
        assert after.resource_version != before.resource_version

    async def test_a_removed_object_is_told_and_a_new_one_of_its_name_is_another(self, stage: Stage) -> None:
        await stage.apply(make_service("a"))
        reader = Reader(stage.store)
        first = await reader.until_seen(service("a"))
        await stage.remove(make_service("a"))
        await reader.until_gone(service("a"))
        await stage.apply(make_service("a"))
        second = await reader.until_seen(service("a"))
        assert second.metadata["uid"] != first.metadata["uid"]

    async def test_a_watch_tells_only_of_its_kinds(self, stage: Stage) -> None:
        await stage.apply(make_service("a"), make_object("ModelDeployment", "a"))
        both, models = Reader(stage.store, "Service", "ModelDeployment"), Reader(stage.store, "ModelDeployment")
        await both.until(lambda cache: cache.objects("Service") and cache.objects("ModelDeployment"))
        await models.until(lambda cache: cache.objects("ModelDeployment"))
        await stage.apply(make_service("b"), make_object("ModelDeployment", "b"))
        await models.until(lambda cache: len(cache.objects("ModelDeployment")) == 2)
        assert not models.cache.objects("Service")

    async def test_a_slow_reader_gets_the_newest_state_only_and_delays_nobody(self, stage: Stage) -> None:
        await stage.apply(make_service("a"), make_service("b"))
        slow, quick = Reader(stage.store), Reader(stage.store)
        for reader in (slow, quick):
            await reader.until(lambda cache: len(cache.objects("Service")) == 2)
        for port in (81, 82, 83):
            await stage.apply(make_service("a", port=port))
            await quick.until_field(service("a"), "spec", {"port": port})
        await stage.remove(make_service("b"))
        await quick.until_gone(service("b"))
        batch = await slow.next()
        assert [stored.raw["spec"] for stored in batch.changed] == [{"port": 83}]
        assert batch.deleted == (service("b"),)
        assert not batch.complete

    async def test_a_cancelled_read_loses_nothing(self, stage: Stage) -> None:
        reader = Reader(stage.store)
        await reader.next()
        read = asyncio.create_task(anext(reader.watch))
        await asyncio.sleep(0)
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
        await stage.apply(make_service("a"))
        await reader.until_seen(service("a"))

    async def test_a_written_status_comes_back_and_keeps_the_generation(self, stage: Stage) -> None:
        await stage.apply(make_service("a"))
        reader = Reader(stage.store)
        before = await reader.until_seen(service("a"))
        await stage.store.patch_status(service("a"), {"ready": True}, before.resource_version)
        after = await reader.until_field(service("a"), "status", {"ready": True})
        assert after.generation == before.generation
        assert after.resource_version != before.resource_version

    async def test_a_status_is_replaced_as_a_whole(self, stage: Stage) -> None:
        await stage.apply(make_service("a"))
        reader = Reader(stage.store)
        stored = await reader.until_seen(service("a"))
        await stage.store.patch_status(service("a"), {"old": 1, "both": 1}, stored.resource_version)
        stored = await reader.until_field(service("a"), "status", {"old": 1, "both": 1})
        await stage.store.patch_status(service("a"), {"both": 2}, stored.resource_version)
        await reader.until_field(service("a"), "status", {"both": 2})

    async def test_a_status_survives_a_change_of_the_spec(self, stage: Stage) -> None:
        await stage.apply(make_service("a"))
        reader = Reader(stage.store)
        stored = await reader.until_seen(service("a"))
        await stage.store.patch_status(service("a"), {"ready": True}, stored.resource_version)
        await stage.apply(make_service("a", port=81))
        after = await reader.until_field(service("a"), "spec", {"port": 81})
        assert after.status == {"ready": True}

    async def test_a_writer_who_read_an_older_version_is_refused(self, stage: Stage) -> None:
        await stage.apply(make_service("a"))
        reader = Reader(stage.store)
        stored = await reader.until_seen(service("a"))
        await stage.store.patch_status(service("a"), {"by": "first"}, stored.resource_version)
        with pytest.raises(ConflictError):
            await stage.store.patch_status(service("a"), {"by": "second"}, stored.resource_version)
        assert (await reader.until_field(service("a"), "status", {"by": "first"})).status == {"by": "first"}

    async def test_the_status_of_an_object_that_is_gone_is_refused(self, stage: Stage) -> None:
        await Reader(stage.store).next()
        with pytest.raises(NotFoundError):
            await stage.store.patch_status(service("a"), {}, "1")

    async def test_an_equal_status_writes_nothing(self, stage: Stage) -> None:
        await stage.apply(make_service("a"))
        reader = Reader(stage.store)
        stored = await reader.until_seen(service("a"))
        await stage.store.patch_status(service("a"), {"n": [1, {"m": 2}]}, stored.resource_version)
        stored = await reader.until_field(service("a"), "status", {"n": [1, {"m": 2}]})
        await stage.store.patch_status(service("a"), {"n": [1, {"m": 2}]}, stored.resource_version)
        await stage.store.patch_status(service("a"), {"n": 3}, stored.resource_version)  # No conflict: it is unchanged.
        await reader.until_field(service("a"), "status", {"n": 3})

    async def test_the_writer_may_go_on_to_change_what_it_wrote(self, stage: Stage) -> None:
        await stage.apply(make_service("a"))
        reader = Reader(stage.store)
        stored = await reader.until_seen(service("a"))
        status = {"history": ["one"]}
        await stage.store.patch_status(service("a"), status, stored.resource_version)
        status["history"].append("two")
        await reader.until_field(service("a"), "status", {"history": ["one"]})
