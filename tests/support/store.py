"""An object store in memory: what a controller and an xDS server share, without files and without a server."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any

from controller.store.directory.fields import merge_patch
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import (
    FIELD_MANAGER,
    UNCONDITIONAL,
    AlreadyExistsError,
    Batch,
    NotFoundError,
    Precondition,
)


class MemoryStore:
    """Implements `ObjectStore`, without owners of fields. What is written reaches every watch in the order written."""

    def __init__(self, objects: Iterable[StoredObject] = ()) -> None:
        self._objects = {one.ref: one for one in objects}
        self._watches: list[tuple[frozenset[str], asyncio.Queue[Batch]]] = []
        self.status_writes = 0

    def __getitem__(self, ref: ObjectRef) -> StoredObject:
        return self._objects[ref]

    def put(self, *objects: StoredObject) -> None:
        for one in objects:
            self._objects[one.ref] = one
        self._tell(Batch(changed=objects))

    def remove(self, *refs: ObjectRef) -> None:
        for ref in refs:
            del self._objects[ref]
        self._tell(Batch(deleted=refs))

    async def watch(self, kinds: Collection[str]) -> AsyncIterator[Batch]:
        watch = (frozenset(kinds), asyncio.Queue[Batch]())
        self._watches.append(watch)
        try:
            yield Batch(changed=tuple(one for one in self._objects.values() if one.ref.kind in kinds), complete=True)
            while True:
                yield await watch[1].get()
        finally:
            self._watches.remove(watch)

    async def read(self, ref: ObjectRef) -> StoredObject:
        if ref not in self._objects:
            raise NotFoundError(str(ref))
        return self._objects[ref]

    async def create(self, raw: Mapping[str, Any]) -> StoredObject:
        if ObjectRef.of(raw) in self._objects:
            raise AlreadyExistsError(str(ObjectRef.of(raw)))
        made = {"uid": f"uid-{len(self._objects)}", "creationTimestamp": "2026-01-01T00:00:00Z", "generation": 1}
        return self._write(raw, made, "0")

    async def update(self, raw: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        stored = await self._meeting(ObjectRef.of(raw), precondition)
        made = {name: stored.metadata[name] for name in ("uid", "creationTimestamp") if name in stored.metadata}
        return self._write(raw, made | {"generation": stored.generation + 1}, stored.resource_version)

    async def apply(
        self,
        raw: Mapping[str, Any],
        manager: str = FIELD_MANAGER,
        *,
        force: bool = False,
        precondition: Precondition = UNCONDITIONAL,
    ) -> StoredObject:
        ref = ObjectRef.of(raw)
        if ref not in self._objects and precondition == UNCONDITIONAL:
            return await self.create(raw)
        return await self.patch(ref, raw, precondition)

    async def patch(
        self, ref: ObjectRef, changes: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        stored = await self._meeting(ref, precondition)
        return await self.update(merge_patch(stored.raw, changes), precondition)

    async def delete(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> None:
        await self._meeting(ref, precondition)
        self.remove(ref)

    async def release_fields(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        return await self._meeting(ref, precondition)

    async def patch_status(
        self, ref: ObjectRef, status: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        stored = await self._meeting(ref, precondition)
        if stored.status == status:
            return stored
        self.status_writes += 1
        return self._write({**stored.raw, "status": status}, {}, stored.resource_version)

    async def _meeting(self, ref: ObjectRef, precondition: Precondition) -> StoredObject:
        stored = await self.read(ref)
        precondition.check(stored)
        return stored

    def _write(self, raw: Mapping[str, Any], made: Mapping[str, Any], version: str) -> StoredObject:
        metadata = {**raw["metadata"], **made, "resourceVersion": str(int(version) + 1)}
        stored = StoredObject(ObjectRef.of(raw), copy.deepcopy({**raw, "metadata": metadata}))
        self.put(stored)
        return stored

    def _tell(self, batch: Batch) -> None:
        for kinds, queue in self._watches:
            queue.put_nowait(
                Batch(
                    changed=tuple(one for one in batch.changed if one.ref.kind in kinds),
                    deleted=tuple(ref for ref in batch.deleted if ref.kind in kinds),
                )
            )


def at(resource_version: str) -> Precondition:
    """Only if the object is still at this version."""
    return Precondition(resource_version=resource_version)


async def settled(rounds: int = 50) -> None:
    """Let every task run until none has anything left to do; with doubles in memory none waits for anything else."""
    for _ in range(rounds):
        await asyncio.sleep(0)
