"""Fencing: a replica that lost its leadership cannot write, whatever it was about to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import (
    FIELD_MANAGER,
    UNCONDITIONAL,
    Batch,
    ObjectStore,
    Precondition,
    StoreError,
)

Result = TypeVar("Result")


class NotLeaderError(StoreError):
    """The lease of the writer is too old for a write, or no longer its own."""


@dataclass(frozen=True, slots=True)
class Leadership:
    """One time of leading, from the election to the loss. `remaining`: seconds it surely lasts; 0 or less: it ended."""

    remaining: Callable[[], float]


class Fenced:
    """A store whose every write passes only while its writer leads, and is ended when it takes longer than that.

    Such a write raises NotLeaderError. Reading is everybody's.
    """

    def __init__(self, store: ObjectStore, leadership: Leadership) -> None:
        self._store = store
        self._leadership = leadership

    def watch(self, kinds: Collection[str]) -> AsyncIterator[Batch]:
        """See `ObjectStore`."""
        return self._store.watch(kinds)

    async def read(self, ref: ObjectRef) -> StoredObject:
        """See `ObjectReader`."""
        return await self._store.read(ref)

    async def create(self, raw: Mapping[str, Any]) -> StoredObject:
        """See `ObjectWriter`."""
        return await self._while_leading(ObjectRef.of(raw), partial(self._store.create, raw))

    async def update(self, raw: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        """See `ObjectWriter`."""
        return await self._while_leading(ObjectRef.of(raw), partial(self._store.update, raw, precondition))

    async def apply(
        self,
        raw: Mapping[str, Any],
        manager: str = FIELD_MANAGER,
        *,
        force: bool = False,
        precondition: Precondition = UNCONDITIONAL,
    ) -> StoredObject:
        """See `ObjectWriter`."""
        write = partial(self._store.apply, raw, manager, force=force, precondition=precondition)
        return await self._while_leading(ObjectRef.of(raw), write)

    async def patch(
        self, ref: ObjectRef, changes: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        """See `ObjectWriter`."""
        return await self._while_leading(ref, partial(self._store.patch, ref, changes, precondition))

    async def delete(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> None:
        """See `ObjectWriter`."""
        await self._while_leading(ref, partial(self._store.delete, ref, precondition))

    async def release_fields(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        """See `ObjectWriter`."""
        return await self._while_leading(ref, partial(self._store.release_fields, ref, precondition))

    async def patch_status(
        self, ref: ObjectRef, status: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        """See `ObjectWriter`."""
        return await self._while_leading(ref, partial(self._store.patch_status, ref, status, precondition))

    async def _while_leading(self, ref: ObjectRef, write: Callable[[], Awaitable[Result]]) -> Result:
        remaining = self._leadership.remaining()
        if remaining <= 0:
            raise NotLeaderError(f"{ref}: not written, for we lead no longer")
        # The store may try more than once. What it tries after the deadline is no longer ours to write.
        try:
            async with asyncio.timeout(remaining) as limit:
                return await write()
        except TimeoutError as error:
            if not limit.expired():
                raise
            raise NotLeaderError(f"{ref}: leadership ended during the write") from error
