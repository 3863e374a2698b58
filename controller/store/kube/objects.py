"""Reading and writing single objects of the API server, one request each.

What was certainly not done is sent again by the client, as is what a precondition keeps from being done twice. Whether
another write that was not answered was done nobody knows: its caller looks, or waits for what a watch says.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controller.api.registry import KINDS, Kind
from controller.store.kube.client import APPLY, JSON_PATCH, MERGE, KubeClient
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import (
    FIELD_MANAGER,
    UNCONDITIONAL,
    ConflictError,
    NotFoundError,
    Precondition,
    RefusedError,
    UnavailableError,
)

log = logging.getLogger(__name__)

LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


def stored_object(kind: Kind, raw: Mapping[str, Any]) -> StoredObject:
    """Read an object as it is answered: items of a list of core objects do not say their own kind."""
    raw = {**raw, "apiVersion": kind.api_version, "kind": kind.kind}
    metadata = raw["metadata"]
    return StoredObject(ObjectRef(kind.kind, metadata["namespace"], metadata["name"]), raw)


def without_bookkeeping(stored: StoredObject) -> StoredObject:
    """Leave out what nobody here reads and what fills half of the memory: who owns which field."""
    metadata = {name: value for name, value in stored.metadata.items() if name != "managedFields"}
    annotations = metadata.get("annotations") or {}
    if LAST_APPLIED in annotations:
        metadata["annotations"] = {name: value for name, value in annotations.items() if name != LAST_APPLIED}
    return StoredObject(stored.ref, {**stored.raw, "metadata": metadata})


class KubeObjects:
    """An ObjectClient over the API server; it holds nothing. `status_writes` counts the requests that wrote a status.

    Raises KeyError for a kind that is not in the registry.
    """

    def __init__(self, client: KubeClient) -> None:
        self._client = client
        self.status_writes = 0

    async def read(self, ref: ObjectRef) -> StoredObject:
        """See `ObjectReader`."""
        kind = KINDS[ref.kind]
        return stored_object(kind, await self._client.request("GET", kind.path(ref.namespace, ref.name)))

    async def create(self, raw: Mapping[str, Any]) -> StoredObject:
        """See `ObjectWriter`."""
        ref = ObjectRef.of(raw)
        kind = KINDS[ref.kind]
        path = kind.path(ref.namespace)
        return stored_object(kind, await self._client.request("POST", path, body=_body(raw)))

    async def update(self, raw: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        """See `ObjectWriter`."""
        ref = ObjectRef.of(raw)
        kind = KINDS[ref.kind]
        body = _body(raw, precondition)
        return stored_object(kind, await self._client.request("PUT", kind.path(ref.namespace, ref.name), body=body))

    async def apply(
        self,
        raw: Mapping[str, Any],
        manager: str = FIELD_MANAGER,
        *,
        force: bool = False,
        precondition: Precondition = UNCONDITIONAL,
    ) -> StoredObject:
        """See `ObjectWriter`."""
        ref = ObjectRef.of(raw)
        kind = KINDS[ref.kind]
        if precondition.resource_version and not precondition.uid:
            # Where there is no such object, the API server would make one whatever resourceVersion is named.
            precondition = replace(precondition, uid=await self._uid_of(ref))
        answer = await self._client.request(
            "PATCH",
            kind.path(ref.namespace, ref.name),
            query={"fieldManager": manager, **({"force": "true"} if force else {})},
            body=_body(raw, precondition),
            content_type=APPLY,
        )
        return stored_object(kind, answer)

    async def patch(
        self, ref: ObjectRef, changes: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        """See `ObjectWriter`."""
        kind = KINDS[ref.kind]
        body = {name: value for name, value in changes.items() if name != "status"}
        if precondition != UNCONDITIONAL:
            body["metadata"] = {**(changes.get("metadata") or {}), **precondition.metadata}
        answer = await self._client.request("PATCH", kind.path(ref.namespace, ref.name), body=body, content_type=MERGE)
        return stored_object(kind, answer)

    async def delete(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> None:
        """See `ObjectWriter`."""
        body = {"preconditions": precondition.metadata} if precondition != UNCONDITIONAL else {}
        await self._client.request("DELETE", KINDS[ref.kind].path(ref.namespace, ref.name), body=body)

    async def release_fields(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        """See `ObjectWriter`. Removes our entries of `managedFields`, of an object that is as it was just read."""
        current, kind = await self.read(ref), KINDS[ref.kind]
        precondition.check(current)
        entries = current.metadata.get("managedFields") or ()
        ours = [number for number, one in enumerate(entries) if _is_ours(one)]
        if not ours:
            return current
        unchanged = {"op": "test", "path": "/metadata/resourceVersion", "value": current.resource_version}
        removals = [{"op": "remove", "path": f"/metadata/managedFields/{number}"} for number in reversed(ours)]
        try:
            answer = await self._client.request(
                "PATCH", kind.path(ref.namespace, ref.name), body=[unchanged, *removals], content_type=JSON_PATCH
            )
        except RefusedError as error:
            # So the API server answers when the test does not hold.
            raise ConflictError(str(error)) from error
        return stored_object(kind, answer)

    async def patch_status(
        self, ref: ObjectRef, status: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        """See `ObjectWriter`."""
        current = await self.read(ref)
        precondition.check(current)
        wanted: dict[str, Any] = json.loads(json.dumps(status))  # As it will be read back.
        return current if current.status == wanted else await self.replace_status(current, wanted, precondition)

    async def replace_status(
        self, current: StoredObject, status: dict[str, Any], precondition: Precondition
    ) -> StoredObject:
        """Write a status by server-side apply onto an object that meets the precondition; return it as it is then.

        What is not sent any more goes: the field manager owns what it sent before. The API server may keep a status in
        another form than it was sent, without the fields that its schema does not have.
        """
        if precondition.uid and not precondition.resource_version:
            # The API server does not look at the uid in an apply of a status.
            precondition = replace(precondition, resource_version=current.resource_version)
        version = Precondition(resource_version=precondition.resource_version)
        try:
            written = await self._send_status("PATCH", current, status, version)
        except UnavailableError as error:
            # So the API server answers an apply with a field that its CustomResourceDefinition does not have.
            if error.status != 500:
                raise
            written = current
        if written.status != status:
            # Fields of another manager stay when an apply does not name them, and a field unknown to the schema fails
            # it. An update replaces all and drops what the schema does not have.
            written = await self._send_status(
                "PUT", written, status, Precondition(resource_version=written.resource_version)
            )
        if written.status != status:
            log.warning(
                "status kept in another form",
                extra={"object": str(current.ref), "fields": _differing(written.status, status)},
            )
        return written

    async def _send_status(
        self, method: str, current: StoredObject, status: dict[str, Any], precondition: Precondition
    ) -> StoredObject:
        ref, kind = current.ref, KINDS[current.ref.kind]
        metadata = {"name": ref.name, "namespace": ref.namespace, **precondition.metadata}
        body = {"apiVersion": kind.api_version, "kind": kind.kind, "metadata": metadata, "status": status}
        path, query = kind.path(ref.namespace, ref.name, "status"), {"fieldManager": FIELD_MANAGER}
        self.status_writes += 1
        if method == "PATCH":
            answer = await self._client.request(
                method, path, query=query | {"force": "true"}, body=body, content_type=APPLY
            )
        else:
            answer = await self._client.request(method, path, query=query, body={**current.raw, **body})
        return stored_object(kind, answer)

    async def _uid_of(self, ref: ObjectRef) -> str:
        try:
            return (await self.read(ref)).uid
        except NotFoundError as error:
            raise ConflictError(f"{ref} is not there, so it is at no resourceVersion") from error


def _body(raw: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL) -> dict[str, Any]:
    metadata = {name: value for name, value in raw["metadata"].items() if name not in ("uid", "resourceVersion")}
    body = {name: value for name, value in raw.items() if name != "status"}
    return {**body, "metadata": {**metadata, **precondition.metadata}}


def _is_ours(entry: Mapping[str, Any]) -> bool:
    return entry.get("manager") == FIELD_MANAGER and not entry.get("subresource")


def _differing(written: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    return ", ".join(sorted(name for name in written.keys() | wanted.keys() if written.get(name) != wanted.get(name)))
