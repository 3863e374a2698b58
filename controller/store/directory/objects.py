"""The objects of the store, with what the API server would give them, and what may be written to them. Pure.

An object that a file defines is its author's: programs write its status and nothing else. What programs create is
theirs, for as long as no file defines it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.api.registry import SECRET
from controller.store.directory.checking import Kinds, Manifest, field_errors, named_object, still_valid
from controller.store.directory.fields import Owners, apply_fields, merge_patch, owners_after_update
from controller.store.directory.folder import Claim
from controller.store.directory.state import (
    ObjectRecord,
    StoreState,
    WrittenObject,
    first_record,
    next_record,
    stored_object,
    written_document,
)
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import (
    FIELD_MANAGER,
    UNCONDITIONAL,
    AlreadyExistsError,
    ConflictError,
    NotFoundError,
    Precondition,
    RefusedError,
)

# What programs may write in all, so that none of them fills a disk, nor the file that is written as a whole each time.
_MOST_WRITTEN = 1000  # Objects.
_LARGEST_WRITTEN = 4 * 1024 * 1024  # Characters of JSON of all of them together, without their statuses.


@dataclass(frozen=True, slots=True)
class Creation:
    """What an object gets that was not there before: its `creationTimestamp`, and a new uid at each call."""

    timestamp: str
    new_uid: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Redefinition:
    """What became of the objects when files changed. `replaced` were written by programs and are a file's now."""

    changed: tuple[StoredObject, ...]
    deleted: tuple[ObjectRef, ...]
    replaced: tuple[ObjectRef, ...]


@dataclass(frozen=True, slots=True)
class ApplyRequest:
    """What a field manager has to say of an object, and whether it takes over the fields of others."""

    raw: Mapping[str, Any] = field(repr=False)
    manager: str
    force: bool


class ObjectTable:
    """All objects. Owned by one task; begins with what the last run saved."""

    def __init__(self, state: StoreState, least_version: int, kinds: Kinds) -> None:
        """`least_version` keeps resourceVersions growing even if the last ones were not saved."""
        self._kinds = kinds
        self.version = max(state.version, least_version)
        self._records = dict(state.records)
        self._written = {ref: one for ref, one in state.written.items() if still_valid(one.manifest, kinds)}
        self._sizes = {ref: _size(one) for ref, one in self._written.items()}
        self._claims: Mapping[ObjectRef, Claim] = {}
        self._manifests: dict[ObjectRef, Manifest] = {}
        self._objects: dict[ObjectRef, StoredObject] = {}

    @property
    def objects(self) -> Collection[StoredObject]:
        """All objects."""
        return self._objects.values()

    def find(self, ref: ObjectRef) -> StoredObject:
        """Return one object. Raises NotFoundError."""
        if ref not in self._objects:
            raise NotFoundError(f"{ref} does not exist")
        return self._objects[ref]

    def state(self, files: Mapping[str, tuple[Manifest, ...]]) -> StoreState:
        """Return what to save. A copy: it may be written by another thread."""
        return StoreState(self.version, dict(self._records), files, dict(self._written))

    def define(self, claims: Mapping[ObjectRef, Claim], creation: Creation) -> Redefinition:
        """Bring the objects in line with what the files define."""
        replaced = tuple(ref for ref in self._written if ref in claims)
        for ref in replaced:
            del self._written[ref], self._sizes[ref]
        before, self._claims = self._manifests, claims
        self._manifests = {ref: one.manifest for ref, one in self._written.items()} | {
            ref: claim.manifest for ref, claim in claims.items()
        }
        deleted = tuple(ref for ref in self._objects if ref not in self._manifests)
        self._objects = {ref: stored for ref, stored in self._objects.items() if ref in self._manifests}
        self._records = {ref: record for ref, record in self._records.items() if ref in self._manifests}
        changed = tuple(
            self._put(manifest, self._next_record(manifest, creation))
            for ref, manifest in self._manifests.items()
            if before.get(ref) is not manifest and self._differs(manifest)
        )
        return Redefinition(changed, deleted, replaced)

    def create(self, raw: Mapping[str, Any], creation: Creation) -> StoredObject:
        """See `ObjectWriter`."""
        manifest = self._named(raw)
        if manifest.ref in self._objects:
            claim = self._claims.get(manifest.ref)
            raise AlreadyExistsError(f"{manifest.ref} exists already{f': it is given in {claim}' if claim else ''}")
        return self._write(manifest, owners_after_update({}, manifest.raw, {}), creation)

    def update(self, raw: Mapping[str, Any], precondition: Precondition, creation: Creation) -> StoredObject:
        """See `ObjectWriter`."""
        manifest = self._named(raw)
        before = self._own(manifest.ref, precondition)
        owners = owners_after_update(before.manifest.raw, manifest.raw, before.owners)
        return self._write(manifest, owners, creation)

    def patch(
        self, ref: ObjectRef, changes: Mapping[str, Any], precondition: Precondition, creation: Creation
    ) -> StoredObject:
        """See `ObjectWriter`."""
        raw = merge_patch(self._own(ref, precondition).manifest.raw, changes)
        if self._named(raw).ref != ref:
            raise RefusedError(f"{ref}: neither kind nor name of an object can change")
        return self.update(raw, UNCONDITIONAL, creation)

    def apply(self, request: ApplyRequest, precondition: Precondition, creation: Creation) -> StoredObject:
        """See `ObjectWriter`."""
        manifest = self._named(request.raw)
        live = _named_alone(manifest)
        owners: Owners = {}
        if manifest.ref in self._objects:
            before = self._own(manifest.ref, precondition)
            live, owners = before.manifest.raw, before.owners
        elif precondition != UNCONDITIONAL:
            raise ConflictError(f"{manifest.ref} does not exist")
        merged, owners = apply_fields(live, manifest.raw, request.manager, owners, force=request.force)
        return self._write(self._named(merged), owners, creation)

    def delete(self, ref: ObjectRef, precondition: Precondition) -> None:
        """See `ObjectWriter`. It is gone at once: finalizers hold nothing here."""
        self._own(ref, precondition)
        del self._objects[ref], self._manifests[ref], self._records[ref], self._written[ref], self._sizes[ref]

    def release_fields(self, ref: ObjectRef, precondition: Precondition) -> StoredObject:
        """See `ObjectWriter`."""
        before = self._own(ref, precondition)
        owners = {manager: paths for manager, paths in before.owners.items() if manager[0] != FIELD_MANAGER}
        self._written[ref] = replace(before, owners=owners)
        self._sizes[ref] = _size(self._written[ref])
        return self.find(ref)

    def write_status(self, ref: ObjectRef, status: Mapping[str, Any], precondition: Precondition) -> StoredObject:
        """See `ObjectWriter`."""
        stored = self.find(ref)
        precondition.check(stored)
        written = json.loads(json.dumps(status))  # As it will be read back, and nobody else's to change.
        record = self._records[ref]
        if written == (record.status or {}):
            return stored
        return self._put(self._manifests[ref], replace(record, status=written, version=self.version + 1))

    def _named(self, raw: Mapping[str, Any]) -> Manifest:
        manifest = named_object(json.loads(json.dumps(raw)), self._kinds)  # Nobody else's to change.
        if not isinstance(manifest, Manifest):
            raise RefusedError("; ".join(map(str, manifest)))
        return manifest

    def _own(self, ref: ObjectRef, precondition: Precondition) -> WrittenObject:
        """Return an object that programs may write."""
        stored = self.find(ref)
        if ref in self._claims:
            raise RefusedError(f"{ref} is given in {self._claims[ref]}: what it is only its author changes, there")
        precondition.check(stored)
        return self._written[ref]

    def _write(self, manifest: Manifest, owners: Owners, creation: Creation) -> StoredObject:
        ref, written = manifest.ref, WrittenObject(manifest, owners)
        errors = field_errors(manifest, self._kinds)
        if errors:
            raise RefusedError(f"{ref} is not valid: {'; '.join(map(str, errors))}")
        self._check_bounds(written)
        self._written[ref], self._sizes[ref] = written, _size(written)
        self._manifests[ref] = manifest
        return self._put(manifest, self._next_record(manifest, creation)) if self._differs(manifest) else self.find(ref)

    def _check_bounds(self, written: WrittenObject) -> None:
        ref = written.manifest.ref
        if ref.kind == SECRET.kind:
            raise RefusedError(f"{ref}: what is in a Secret is not saved here; write it into a file")
        if ref not in self._written and len(self._written) >= _MOST_WRITTEN:
            raise RefusedError(f"{ref}: there are {_MOST_WRITTEN} objects that programs wrote, as many as may be")
        if sum(self._sizes.values()) - self._sizes.get(ref, 0) + _size(written) > _LARGEST_WRITTEN:
            raise RefusedError(f"{ref}: what programs wrote would be larger than {_LARGEST_WRITTEN} characters")

    def _differs(self, manifest: Manifest) -> bool:
        record = self._records.get(manifest.ref)
        same = record is not None and next_record(manifest, record, self.version) is record
        return not same or manifest.ref not in self._objects

    def _next_record(self, manifest: Manifest, creation: Creation) -> ObjectRecord:
        record, version = self._records.get(manifest.ref), self.version + 1
        if record is None:
            return first_record(manifest, creation.new_uid(), creation.timestamp, version)
        return next_record(manifest, record, version)

    def _put(self, manifest: Manifest, record: ObjectRecord) -> StoredObject:
        self.version = max(self.version, record.version)
        self._records[manifest.ref] = record
        self._objects[manifest.ref] = stored = stored_object(manifest, record)
        return stored


def _named_alone(manifest: Manifest) -> Mapping[str, Any]:
    """An object of which nothing is known but its name."""
    raw, ref = manifest.raw, manifest.ref
    metadata = {"name": ref.name, "namespace": ref.namespace}
    return {"apiVersion": raw["apiVersion"], "kind": ref.kind, "metadata": metadata}


def _size(written: WrittenObject) -> int:
    return len(json.dumps(written_document(written)))
