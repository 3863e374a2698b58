"""The store itself: a reflector for each kind and namespace, their objects in one place, statuses written back."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Collection as AnyCollection
from collections.abc import Iterator, Mapping
from typing import Any

from controller.store.kube.client import APPLY, KubeClient
from controller.store.kube.collection import RESOURCES, Changes, Collection
from controller.store.kube.reflector import Reflector, stored_object
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import ConflictError, NotFoundError, UnavailableError
from controller.store.watches import Watch, Watches

FIELD_MANAGER = "beamlit-controller"

log = logging.getLogger(__name__)


class KubeStore:
    """An ObjectStore over the API server; `async with` runs it. The client must be open, and stays open.

    Without `namespaces` all are read, which needs the right to list and watch in all of them. `also` are kinds that are
    read in one more namespace each. `writes` counts the requests that wrote a status.
    """

    def __init__(
        self,
        client: KubeClient,
        kinds: AnyCollection[str],
        namespaces: AnyCollection[str] = (),
        *,
        also: AnyCollection[tuple[str, str]] = (),
    ) -> None:
        """Raises KeyError for a kind that is not in `RESOURCES`."""
        self._client = client
        where = [(kind, namespace) for kind in kinds for namespace in namespaces or ("",)]
        second_look = client.timing.second_look
        more = [one for one in also if namespaces and one not in where]
        self._reflectors = {
            (kind, namespace): Reflector(client, RESOURCES[kind], namespace, Collection(second_look), self._tell)
            for kind, namespace in (*where, *more)
        }
        self._anywhere = not namespaces
        self._watches = Watches(self._objects)
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._taken: dict[ObjectRef, tuple[str, Mapping[str, Any]]] = {}
        self.writes = 0

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
        found = ((str(one), one.collection.suspicion) for one in self._reflectors.values())
        return {name: suspicion.why for name, suspicion in found if suspicion is not None}

    def troubles(self) -> Mapping[str, str]:
        """The kinds that cannot be read now, each with the reason."""
        return {str(one): one.trouble for one in self._reflectors.values() if one.trouble}

    async def patch_status(self, ref: ObjectRef, status: Mapping[str, Any], resource_version: str) -> None:
        """Replace a status by server-side apply. Raises ConflictError, NotFoundError or another StoreError.

        What is not sent any more goes: the field manager owns what it sent before. What comes back is told at once, so
        that the next decision is not made on the state before.
        """
        collection = self._collection(ref)
        held = None if collection is None else collection.find(ref)
        if collection is None or held is None:
            raise NotFoundError(f"{ref} does not exist")
        if held.resource_version != resource_version:
            raise ConflictError(f"{ref} is at resourceVersion {held.resource_version}, not {resource_version}")
        wanted: dict[str, Any] = json.loads(json.dumps(status))  # As it will be read back.
        if wanted in (held.status, self._taken_at(held)):
            return
        self._tell(collection.put(await self._write(held, wanted)))

    def _taken_at(self, held: StoredObject) -> Mapping[str, Any] | None:
        """The status that was sent and made this version, though the API server keeps another one for it."""
        version, status = self._taken.get(held.ref, ("", None))
        return status if version == held.resource_version else None

    async def _write(self, held: StoredObject, wanted: dict[str, Any]) -> StoredObject:
        try:
            written = await self._send("PATCH", held, wanted)
        except UnavailableError as error:
            # So the API server answers an apply with a field that its CustomResourceDefinition does not have.
            if error.status != 500:
                raise
            written = held
        if written.status != wanted:
            # Fields of another manager stay when an apply does not name them, and a field unknown to the schema fails
            # it. An update replaces all and drops what the schema does not have.
            written = await self._send("PUT", written, wanted)
        if written.status != wanted:
            log.warning(
                "status kept in another form", extra={"object": str(held.ref), "fields": _differing(written, wanted)}
            )
            self._taken[held.ref] = (written.resource_version, wanted)
        return written

    async def _send(self, method: str, held: StoredObject, status: dict[str, Any]) -> StoredObject:
        resource = RESOURCES[held.ref.kind]
        metadata = {"name": held.ref.name, "namespace": held.ref.namespace, "resourceVersion": held.resource_version}
        body = {"apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata, "status": status}
        query = {"fieldManager": FIELD_MANAGER}
        self.writes += 1
        if method == "PATCH":
            answer = await self._client.request(
                method, resource.status_of(held.ref), query=query | {"force": "true"}, body=body, content_type=APPLY
            )
        else:
            answer = await self._client.request(
                method, resource.status_of(held.ref), query=query, body={**held.raw, **body}
            )
        return stored_object(resource, answer)

    def _collection(self, ref: ObjectRef) -> Collection | None:
        reflector = self._reflectors.get((ref.kind, "" if self._anywhere else ref.namespace))
        return None if reflector is None else reflector.collection

    def _objects(self) -> Iterator[StoredObject]:
        for reflector in self._reflectors.values():
            yield from reflector.collection.objects

    def _tell(self, changes: Changes) -> None:
        for ref in changes.deleted:
            self._taken.pop(ref, None)
        if self._watches.started:
            self._watches.publish(changes.changed, changes.deleted)
        elif all(reflector.collection.listed for reflector in self._reflectors.values()):
            self._watches.start()


def _differing(written: StoredObject, wanted: Mapping[str, Any]) -> str:
    names = written.status.keys() | wanted.keys()
    return ", ".join(sorted(name for name in names if written.status.get(name) != wanted.get(name)))
