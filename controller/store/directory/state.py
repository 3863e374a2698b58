"""What a restart must not lose: identities, versions, statuses, what programs wrote; and the document of it. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from controller.api.registry import SECRET
from controller.store.directory.checking import Manifest
from controller.store.directory.fields import Owners
from controller.store.objects import ObjectRef, StoredObject


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """What the API server would add to an object that its author does not say.

    `created` is RFC 3339. The digests tell whether the object's metadata and its content (all but metadata and status)
    are still those of `version`; they are salted with the uid, for a Secret's content may be short.
    """

    uid: str
    created: str
    generation: int
    version: int
    metadata_digest: str
    content_digest: str
    status: Mapping[str, Any] | None = field(default=None, repr=False)


def first_record(manifest: Manifest, uid: str, created: str, version: int) -> ObjectRecord:
    """The record of an object that was not there before."""
    return ObjectRecord(uid, created, 1, version, *_digests(manifest, uid))


def next_record(manifest: Manifest, record: ObjectRecord, version: int) -> ObjectRecord:
    """The record after its author wrote it again: the same one when nothing changed, else at `version`."""
    metadata_digest, content_digest = _digests(manifest, record.uid)
    if (metadata_digest, content_digest) == (record.metadata_digest, record.content_digest):
        return record
    return replace(
        record,
        generation=record.generation + (content_digest != record.content_digest),
        version=version,
        metadata_digest=metadata_digest,
        content_digest=content_digest,
    )


def stored_object(manifest: Manifest, record: ObjectRecord) -> StoredObject:
    """The whole object, as the API server would answer it."""
    metadata = {
        **manifest.raw["metadata"],
        "uid": record.uid,
        "creationTimestamp": record.created,
        "generation": record.generation,
        "resourceVersion": str(record.version),
    }
    raw = {**manifest.raw, "metadata": metadata}
    if record.status is not None:
        raw["status"] = record.status
    return StoredObject(manifest.ref, raw)


def _digests(manifest: Manifest, uid: str) -> tuple[str, str]:
    content = {key: value for key, value in manifest.raw.items() if key != "metadata"}
    return _digest(uid, manifest.raw["metadata"]), _digest(uid, content)


def _digest(salt: str, value: Mapping[str, Any]) -> str:
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(f"{salt}\n{text}".encode()).hexdigest()


_VERSION = 1


@dataclass(frozen=True, slots=True)
class WrittenObject:
    """An object that is in no file, for a program wrote it: what it is, and whose each of its fields is."""

    manifest: Manifest
    owners: Owners = field(repr=False)


@dataclass(frozen=True, slots=True)
class StoreState:
    """The state at one moment: the last resourceVersion given, and the objects.

    `records` are those of all objects, `files` the last good manifests of each file, `written` what programs wrote.
    """

    version: int = 0
    records: Mapping[ObjectRef, ObjectRecord] = field(default_factory=dict)
    files: Mapping[str, tuple[Manifest, ...]] = field(default_factory=dict)
    written: Mapping[ObjectRef, WrittenObject] = field(default_factory=dict)


def state_document(state: StoreState) -> dict[str, Any]:
    """Return the state as JSON. The manifest of a Secret is left out."""
    return {
        "version": _VERSION,
        "resourceVersion": state.version,
        "objects": [{"ref": asdict(ref), **asdict(record)} for ref, record in state.records.items()],
        "files": {
            file: [
                {"line": manifest.line, "raw": manifest.raw}
                for manifest in manifests
                if manifest.ref.kind != SECRET.kind
            ]
            for file, manifests in state.files.items()
        },
        "written": [written_document(written) for written in state.written.values()],
    }


def written_document(written: WrittenObject) -> dict[str, Any]:
    """Return what is kept of an object that a program wrote, as JSON."""
    owners = [
        {"manager": manager, "operation": operation, "fields": [list(path) for path in sorted(paths)]}
        for (manager, operation), paths in sorted(written.owners.items())
    ]
    return {"raw": written.manifest.raw, "owners": owners}


def parse_state(document: Mapping[str, Any]) -> StoreState:
    """Read a document back. Raises ValueError, LookupError, TypeError or AttributeError for what is none."""
    if document["version"] != _VERSION:
        raise ValueError("unknown version")
    records = {}
    for entry in document["objects"]:
        ref = ObjectRef(**entry.pop("ref"))
        records[ref] = ObjectRecord(**entry)
    files = {
        file: tuple(_manifest(entry["raw"], entry["line"]) for entry in manifests)
        for file, manifests in document["files"].items()
    }
    # A version that knew no such objects wrote none.
    written = (_written(entry) for entry in document.get("written", ()))
    return StoreState(int(document["resourceVersion"]), records, files, {one.manifest.ref: one for one in written})


def _written(entry: Mapping[str, Any]) -> WrittenObject:
    owners = {
        (one["manager"], one["operation"]): frozenset(tuple(path) for path in one["fields"]) for one in entry["owners"]
    }
    return WrittenObject(_manifest(entry["raw"], line=0), owners)


def _manifest(raw: Mapping[str, Any], line: int) -> Manifest:
    return Manifest(ObjectRef.of(raw), raw, line)
