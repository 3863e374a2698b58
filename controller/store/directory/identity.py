"""What the API server gives an object beside its content: uid, creation time, generation and resourceVersion."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from controller.store.directory.checking import Manifest
from controller.store.objects import StoredObject


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of an object that its file does not say.

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


def first_record(manifest: Manifest, uid: str, created: str, version: int) -> Record:
    """The record of an object that was not there before."""
    return Record(uid, created, 1, version, *_digests(manifest, uid))


def next_record(manifest: Manifest, record: Record, version: int) -> Record:
    """The record after its file was read again: the same one when nothing changed, else at `version`."""
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


def stored_object(manifest: Manifest, record: Record) -> StoredObject:
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
