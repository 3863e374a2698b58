"""What must survive a restart, in one JSON file outside the folder: identities, statuses, files' last good content.

The content of a Secret is never written; only its salted digest is, in its record. Calls block.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from controller.store.directory.checking import Manifest
from controller.store.directory.identity import Record
from controller.store.objects import ObjectRef

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
