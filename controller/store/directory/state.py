"""What a restart must not lose, and its file: identities, versions, statuses, what programs wrote."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from controller.api.registry import SECRET
from controller.api.timing import FolderTiming
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

log = logging.getLogger(__name__)


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


def load_state(path: Path) -> StoreState:
    """Read the state. Without a file it is empty; a file that cannot be understood is set aside as `.corrupt`."""
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return StoreState()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        aside = path.with_name(path.name + ".corrupt")
        path.replace(aside)
        log.warning("state file set aside, starting without it", extra={"path": aside, "error": type(error).__name__})
        return StoreState()


def save_state(path: Path, state: StoreState) -> None:
    """Write the state so that a reader finds the old one or the new one whole. Raises OSError."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # Left by a crash, maybe with another mode.
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        json.dump(_document(state), file, separators=(",", ":"))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _document(state: StoreState) -> dict[str, Any]:
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


def _parse(document: Mapping[str, Any]) -> StoreState:
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


class StateWriter:
    """Writes `snapshot()` to a file after each `mark_dirty`, and once more at the end."""

    def __init__(self, path: Path, snapshot: Callable[[], StoreState], timing: FolderTiming) -> None:
        self._path = path
        self._snapshot = snapshot
        self._timing = timing
        self._dirty = asyncio.Event()
        self._closing = asyncio.Event()

    def mark_dirty(self) -> None:
        """Something changed."""
        self._dirty.set()

    def stop(self) -> None:
        """Let `run` write once more and return."""
        self._closing.set()
        self._dirty.set()

    async def run(self) -> None:
        """Write until stopped. Not to be cancelled: a write under way would race with the next."""
        while not self._closing.is_set() or self._dirty.is_set():
            await self._dirty.wait()
            self._dirty.clear()
            pause = self._timing.save_pause
            try:
                await asyncio.to_thread(save_state, self._path, self._snapshot())
            except OSError as error:
                log.warning("state file not written", extra={"path": self._path, "error": error.strerror})
                pause = self._timing.save_pause_after_failure
                if not self._closing.is_set():
                    self._dirty.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()
