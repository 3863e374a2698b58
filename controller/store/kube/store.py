"""The store itself: a reflector for each kind and namespace, their objects in one place, and writes to them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection as AnyCollection
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from controller.api.registry import KINDS
from controller.store.kube.client import KubeClient
from controller.store.kube.collection import Changes, Collection
from controller.store.kube.objects import KubeObjects, without_bookkeeping
from controller.store.kube.reflector import Reflector
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import FIELD_MANAGER, UNCONDITIONAL, NotFoundError, Precondition
from controller.store.watches import Watch, Watches

log = logging.getLogger(__name__)


class KubeStore:
    """An ObjectStore over the API server; `async with` runs it. The client must be open, and stays open.

    Without `namespaces` all are read, which needs the right to list and watch in all of them. `also` are kinds that are
    read in one more namespace each. Of the status of a kind in `status_fields` no other fields are remembered: for a
    program that writes none. Objects of every kind may be read and written, watched or not. What a write of our own
    returned is published at once, so that the next decision is not made on the state before.
    """

    def __init__(
        self,
        client: KubeClient,
        kinds: AnyCollection[str],
        namespaces: AnyCollection[str] = (),
        *,
        also: AnyCollection[tuple[str, str]] = (),
        status_fields: Mapping[str, AnyCollection[str]] = MappingProxyType({}),
    ) -> None:
        """Raises KeyError for a kind that is not in the registry."""
        self._server = KubeObjects(client)
        where = [(kind, namespace) for kind in kinds for namespace in namespaces or ("",)]
        second_look = client.timing.second_look
        more = [one for one in also if namespaces and one not in where]
        self._reflectors = {
            (kind, namespace): Reflector(
                client, KINDS[kind], namespace, Collection(second_look, status_fields.get(kind)), self._publish
            )
            for kind, namespace in (*where, *more)
        }
        self._anywhere = not namespaces
        self._watches = Watches(self._objects)
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        # The status that was sent and made a version, where the API server keeps another one for it.
        self._sent: dict[ObjectRef, tuple[str, Mapping[str, Any]]] = {}

    @property
    def status_writes(self) -> int:
        """How many requests wrote a status."""
        return self._server.status_writes

    async def __aenter__(self) -> KubeStore:
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Begin to list and watch. A store runs once."""
        self._tasks = tuple(
            asyncio.create_task(reflector.run(), name=f"reflector of {reflector}")
            for reflector in self._reflectors.values()
        )
        for task in self._tasks:
            task.add_done_callback(self._reflector_ended)
        if not self._tasks:
            self._watches.start()

    async def close(self) -> None:
        """End every watch and stop all tasks."""
        self._watches.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _reflector_ended(self, task: asyncio.Task[None]) -> None:
        failure = None if task.cancelled() else task.exception()
        if failure is not None:
            # The words of the failure may quote an object.
            log.error("store failed", extra={"at": task.get_name(), "error": type(failure).__name__})
        self._watches.close(failure)

    def watch(self, kinds: AnyCollection[str]) -> Watch:
        """Watch some kinds; the first batch comes when every kind of the store, in every namespace, was listed."""
        return self._watches.open(kinds)

    def not_ready(self) -> str | None:
        """What is not listed yet and why; None from when everything was listed once."""
        waiting = [
            f"{reflector}: {reflector.trouble}"
            for reflector in self._reflectors.values()
            if not reflector.collection.listed
        ]
        return "; ".join(waiting) or None

    def suspects(self) -> Mapping[str, str]:
        """The kinds whose last list was not believed yet, each with the reason."""
        suspects = ((str(one), one.collection.suspect) for one in self._reflectors.values())
        return {name: suspect.reason for name, suspect in suspects if suspect is not None}

    def troubles(self) -> Mapping[str, str]:
        """The kinds that cannot be read now, each with the reason."""
        return {str(one): one.trouble for one in self._reflectors.values() if one.trouble}

    async def read(self, ref: ObjectRef) -> StoredObject:
        """See `ObjectReader`. Asks the API server, also for what is watched."""
        return await self._server.read(ref)

    async def create(self, raw: Mapping[str, Any]) -> StoredObject:
        """See `ObjectWriter`."""
        return self._written(await self._server.create(raw))

    async def update(self, raw: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        """See `ObjectWriter`."""
        return self._written(await self._server.update(raw, precondition))

    async def apply(
        self,
        raw: Mapping[str, Any],
        manager: str = FIELD_MANAGER,
        *,
        force: bool = False,
        precondition: Precondition = UNCONDITIONAL,
    ) -> StoredObject:
        """See `ObjectWriter`."""
        return self._written(await self._server.apply(raw, manager, force=force, precondition=precondition))

    async def patch(
        self, ref: ObjectRef, changes: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        """See `ObjectWriter`."""
        return self._written(await self._server.patch(ref, changes, precondition))

    async def delete(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> None:
        """See `ObjectWriter`. The version of the deletion comes with the watch, as the deletion does."""
        await self._server.delete(ref, precondition)

    async def release_fields(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        """See `ObjectWriter`."""
        return self._written(await self._server.release_fields(ref, precondition))

    async def patch_status(
        self, ref: ObjectRef, status: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        """See `ObjectWriter`. Only of kinds that are watched; what is equal, or known to be late, is no request."""
        collection = self._collection(ref)
        current = None if collection is None else collection.find(ref)
        if current is None:
            raise NotFoundError(f"{ref} does not exist")
        precondition.check(current)
        wanted: dict[str, Any] = json.loads(json.dumps(status))  # As it will be read back.
        version, sent = self._sent.get(ref, ("", None))
        if wanted == current.status or (version == current.resource_version and wanted == sent):
            return current
        written = self._written(await self._server.replace_status(current, wanted, precondition))
        if written.status != wanted:
            self._sent[ref] = (written.resource_version, wanted)
        return written

    def _written(self, stored: StoredObject) -> StoredObject:
        stored = without_bookkeeping(stored)
        collection = self._collection(stored.ref)
        if collection is not None:
            self._publish(collection.put(stored))
        return stored

    def _collection(self, ref: ObjectRef) -> Collection | None:
        reflector = self._reflectors.get((ref.kind, "" if self._anywhere else ref.namespace))
        return None if reflector is None else reflector.collection

    def _objects(self) -> Iterator[StoredObject]:
        for reflector in self._reflectors.values():
            yield from reflector.collection.objects

    def _publish(self, changes: Changes) -> None:
        for ref in changes.deleted:
            self._sent.pop(ref, None)
        if self._watches.started:
            self._watches.publish(changes.changed, changes.deleted)
        elif all(reflector.collection.listed for reflector in self._reflectors.values()):
            self._watches.start()
