"""What the API server gives an object beside its content: uid, creation time, generation and resourceVersion."""

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

from controller.api.timing import FolderTiming
from controller.store.directory.checking import Manifest
from controller.store.objects import ObjectRef, StoredObject


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


_VERSION = 1

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class State:
    """The state at one moment: the last resourceVersion given, each object's record, each file's good manifests."""

    version: int = 0
    records: Mapping[ObjectRef, Record] = field(default_factory=dict)
    files: Mapping[str, tuple[Manifest, ...]] = field(default_factory=dict)


def load_state(path: Path) -> State:
    """Read the state. Without a file it is empty; a file that cannot be understood is set aside as `.corrupt`."""
    try:
        return _parse(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return State()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        aside = path.with_name(path.name + ".corrupt")
        path.replace(aside)
        log.warning("state file set aside, starting without it", extra={"path": aside, "error": type(error).__name__})
        return State()


def save_state(path: Path, state: State) -> None:
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


def _document(state: State) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "resourceVersion": state.version,
        "objects": [{"ref": asdict(ref), **asdict(record)} for ref, record in state.records.items()],
        "files": {
            file: [
                {"line": manifest.line, "raw": manifest.raw} for manifest in manifests if manifest.ref.kind != "Secret"
            ]
            for file, manifests in state.files.items()
        },
    }


def _parse(document: Mapping[str, Any]) -> State:
    if document["version"] != _VERSION:
        raise ValueError("unknown version")
    records = {}
    for entry in document["objects"]:
        ref = ObjectRef(**entry.pop("ref"))
        records[ref] = Record(**entry)
    files = {
        file: tuple(_manifest(entry["raw"], entry["line"]) for entry in manifests)
        for file, manifests in document["files"].items()
    }
    return State(int(document["resourceVersion"]), records, files)


def _manifest(raw: Mapping[str, Any], line: int) -> Manifest:
    metadata = raw["metadata"]
    return Manifest(ObjectRef(raw["kind"], metadata["namespace"], metadata["name"]), raw, line)


class Saving:
    """Writes `snapshot()` to a file after each `mark`, and once more at the end."""

    def __init__(self, path: Path, snapshot: Callable[[], State], timing: FolderTiming) -> None:
        self._path = path
        self._snapshot = snapshot
        self._timing = timing
        self._marked = asyncio.Event()
        self._closing = asyncio.Event()

    def mark(self) -> None:
        """Something changed."""
        self._marked.set()

    def stop(self) -> None:
        """Let `run` write once more and return."""
        self._closing.set()
        self._marked.set()

    async def run(self) -> None:
        """Write until stopped. Not to be cancelled: a write under way would race with the next."""
        while not self._closing.is_set() or self._marked.is_set():
            await self._marked.wait()
            self._marked.clear()
            pause = self._timing.save_pause
            try:
                await asyncio.to_thread(save_state, self._path, self._snapshot())
            except OSError as error:
                log.warning("state file not written", extra={"path": self._path, "error": error.strerror})
                pause = self._timing.save_pause_after_failure
                if not self._closing.is_set():
                    self._marked.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._closing.wait()
