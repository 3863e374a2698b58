"""Applying the writes of a plan: each becomes one call of an `ObjectWriter`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.runtime.writes import Verb, Write, WrittenBy
from controller.store.protocol import ObjectWriter


@dataclass(frozen=True, slots=True)
class Applier:
    """Applies writes with the writer that each may use.

    `leader` is fenced: it writes only while this replica leads. `any_replica` writes what every replica would write
    alike, so that it needs nobody to lead.
    """

    leader: ObjectWriter
    any_replica: ObjectWriter

    async def apply(self, writes: Iterable[Write]) -> None:
        """Do these writes in their order, up to the first that fails. Raises StoreError."""
        for write in writes:
            await self._apply(self.leader if write.by is WrittenBy.LEADER else self.any_replica, write)

    async def _apply(self, writer: ObjectWriter, write: Write) -> None:
        match write.verb:
            case Verb.CREATE:
                await writer.create(write.content)
            case Verb.APPLY:
                await writer.apply(write.content, precondition=write.precondition)
            case Verb.PATCH:
                await writer.patch(write.ref, write.content, write.precondition)
            case Verb.DELETE:
                await writer.delete(write.ref, write.precondition)
            case Verb.RELEASE_FIELDS:
                await writer.release_fields(write.ref, write.precondition)
            case Verb.PATCH_STATUS:
                await writer.patch_status(write.ref, write.content, write.precondition)
