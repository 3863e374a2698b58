"""A reader of a watch that waits for what it wants to see, with a generous bound in place of a sleep."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from controller.store.cache import Cache
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch, ObjectStore
from tests.support.waiting import PATIENCE, time_limit


class Reader:
    def __init__(self, store: ObjectStore, *kinds: str) -> None:
        self.watch: AsyncIterator[Batch] = store.watch(kinds or ("Service",))
        self.cache = Cache()
        self.batches: list[Batch] = []

    async def next(self) -> Batch:
        async with time_limit(PATIENCE):
            batch = await anext(self.watch)
        self.batches.append(batch)
        self.cache.apply(batch)
        return batch

    async def until(self, condition: Callable[[Cache], object]) -> None:
        while not self.batches or not condition(self.cache):
            await self.next()

    async def until_seen(self, ref: ObjectRef) -> StoredObject:
        await self.until(lambda cache: cache.find(ref))
        return self.find(ref)

    async def until_gone(self, ref: ObjectRef) -> None:
        await self.until(lambda cache: cache.find(ref) is None)

    async def until_field(self, ref: ObjectRef, field: str, value: object) -> StoredObject:
        def at_value(cache: Cache) -> bool:
            found = cache.find(ref)
            return found is not None and found.raw.get(field) == value

        await self.until(at_value)
        return self.find(ref)

    async def until_environment(self, ref: ObjectRef, environment: str) -> StoredObject:
        def at_value(cache: Cache) -> bool:
            found = cache.find(ref)
            return found is not None and found.raw["spec"]["environment"] == environment

        await self.until(at_value)
        return self.find(ref)

    def find(self, ref: ObjectRef) -> StoredObject:
        found = self.cache.find(ref)
        assert found is not None, f"{ref} is not there"
        return found

    @property
    def deleted(self) -> set[ObjectRef]:
        return {ref for batch in self.batches for ref in batch.deleted}

    @property
    def names(self) -> set[str]:
        return {ref.name for kind in ("Service", "Secret", "ModelDeployment") for ref in self.cache.objects(kind)}
