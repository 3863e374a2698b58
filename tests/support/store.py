"""An object store in memory: what a controller and a delivery share, without files and without a server."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any

from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch, ConflictError, NotFoundError


class MemoryStore:
    """Implements `ObjectStore`. Whatever is written reaches every watch in the order written."""

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

    def delete(self, *refs: ObjectRef) -> None:
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

    async def patch_status(self, ref: ObjectRef, status: Mapping[str, Any], resource_version: str) -> None:
        if ref not in self._objects:
            raise NotFoundError(str(ref))
        stored = self._objects[ref]
        if stored.resource_version != resource_version:
            raise ConflictError(str(ref))
        if stored.status == status:
            return
        self.status_writes += 1
        metadata = {**stored.metadata, "resourceVersion": str(int(stored.resource_version) + 1)}
        self.put(StoredObject(ref, {**stored.raw, "metadata": metadata, "status": copy.deepcopy(dict(status))}))

    def _tell(self, batch: Batch) -> None:
        for kinds, queue in self._watches:
            queue.put_nowait(
                Batch(
                    changed=tuple(one for one in batch.changed if one.ref.kind in kinds),
                    deleted=tuple(ref for ref in batch.deleted if ref.kind in kinds),
                )
            )


async def settled(rounds: int = 50) -> None:
    """Let every task run until none has anything left to do; with doubles in memory none waits for anything else."""
    for _ in range(rounds):
        await asyncio.sleep(0)
