"""Which file holds each object, when any number of files may claim it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any

from controller.api.timing import FolderTiming
from controller.store.directory.checking import FileContent, Kinds, Manifest, still_valid
from controller.store.directory.state import Record, State, first_record, next_record, stored_object
from controller.store.manifest.manifest import Problem
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import ConflictError, NotFoundError


@dataclass(frozen=True, slots=True)
class Claim:
    """An object as one file gives it."""

    file: str
    manifest: Manifest


@dataclass(frozen=True, slots=True)
class Arrangement:
    """The claim that counts for each object, and a problem for every claim that does not."""

    held: Mapping[ObjectRef, Claim]
    conflicts: tuple[Problem, ...]


def arrange(files: Mapping[str, FileContent], holders: Mapping[ObjectRef, str]) -> Arrangement:
    """Give each object to the file that held it (`holders`); when that claims it no more, to the first by path.

    Within a file the first document counts.
    """
    claims: dict[ObjectRef, list[Claim]] = {}
    for file in sorted(files):
        for manifest in files[file].manifests:
            claims.setdefault(manifest.ref, []).append(Claim(file, manifest))
    held = {ref: _winner(several, holders.get(ref)) for ref, several in claims.items()}
    conflicts = (
        _conflict(claim, held[ref]) for ref, several in claims.items() for claim in several if claim is not held[ref]
    )
    return Arrangement(held, tuple(conflicts))


def _winner(claims: list[Claim], holder: str | None) -> Claim:
    return next((claim for claim in claims if claim.file == holder), claims[0])


def _conflict(claim: Claim, winner: Claim) -> Problem:
    message = f"{claim.manifest.ref} is already given in {winner.file}:{winner.manifest.line}, which counts"
    return Problem(claim.file, claim.manifest.line, "metadata.name", message)


@dataclass(frozen=True, slots=True)
class Birth:
    """What an object gets that was not there before: its `creationTimestamp`, and a new uid at each call."""

    created: str
    new_uid: Callable[[], str]


class Folder:
    """Owned by one task; no I/O. Begins with what the last run remembered."""

    def __init__(self, state: State, least_version: int, kinds: Kinds, timing: FolderTiming) -> None:
        """`least_version` keeps resourceVersions growing even if the last ones were not written down."""
        self._timing = timing
        self._version = max(state.version, least_version)
        self._records = dict(state.records)
        self._contents = {
            file: FileContent(tuple(manifest for manifest in manifests if still_valid(manifest, kinds)))
            for file, manifests in state.files.items()
        }
        self._objects: dict[ObjectRef, StoredObject] = {}
        self._holders: dict[ObjectRef, str] = {}
        self._given: dict[ObjectRef, Manifest] = {}
        self._conflicts: tuple[Problem, ...] = ()

    @property
    def files(self) -> Collection[str]:
        """The files that say something."""
        return self._contents.keys()

    @property
    def objects(self) -> Collection[StoredObject]:
        """All objects."""
        return self._objects.values()

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the files, in the order of files and lines."""
        found = [problem for content in self._contents.values() for problem in content.problems]
        return tuple(sorted((*found, *self._conflicts)))

    @property
    def state(self) -> State:
        """What to remember. A copy: it may be written by another thread."""
        files = {file: content.manifests for file, content in self._contents.items() if content.manifests}
        return State(self._version, dict(self._records), files)

    def content(self, file: str) -> FileContent:
        """What a file says, nothing for one that is not there."""
        return self._contents.get(file, FileContent())

    def patience(self, contents: Mapping[str, FileContent | None]) -> dict[str, float]:
        """Seconds that each of these new contents (None: the file is gone) must rest before it is believed.

        One that drops an object which no file would give any more needs more, one without any document the most.
        """
        after = self._contents | {file: self._kept(file, content) for file, content in contents.items()}
        left = {manifest.ref for content in after.values() for manifest in content.manifests}
        needed = {}
        for file, content in contents.items():
            if all(manifest.ref in left for manifest in self.content(file).manifests):
                needed[file] = self._timing.quiet
            elif content == FileContent():
                needed[file] = self._timing.emptied
            else:
                needed[file] = self._timing.losing
        return needed

    def believe(self, file: str, content: FileContent | None) -> None:
        """Take what a file says now. One with problems keeps its last good manifests; None is a file that is gone."""
        if content is None:
            self._contents.pop(file, None)
        else:
            self._contents[file] = self._kept(file, content)

    def _kept(self, file: str, content: FileContent | None) -> FileContent:
        if content is not None and content.problems:
            return replace(content, manifests=self.content(file).manifests)
        return content or FileContent()

    def update(self, birth: Birth) -> tuple[tuple[StoredObject, ...], tuple[ObjectRef, ...]]:
        """Bring the objects in line with the files; give those that changed and those that are gone."""
        arrangement = arrange(self._contents, self._holders)
        self._conflicts = arrangement.conflicts
        self._holders = {ref: claim.file for ref, claim in arrangement.held.items()}
        manifests = {ref: claim.manifest for ref, claim in arrangement.held.items()}
        deleted = tuple(ref for ref in self._objects if ref not in manifests)
        self._objects = {ref: stored for ref, stored in self._objects.items() if ref in manifests}
        self._records = {ref: record for ref, record in self._records.items() if ref in manifests}
        changed = tuple(
            self._store(manifest, birth)
            for ref, manifest in manifests.items()
            if self._given.get(ref) is not manifest and self._differs(manifest)
        )
        self._given = manifests
        return changed, deleted

    def _differs(self, manifest: Manifest) -> bool:
        record = self._records.get(manifest.ref)
        known = record is not None and next_record(manifest, record, self._version) is record
        return not known or manifest.ref not in self._objects

    def _store(self, manifest: Manifest, birth: Birth) -> StoredObject:
        record = self._records.get(manifest.ref)
        version = self._version + 1
        if record is None:
            record = first_record(manifest, birth.new_uid(), birth.created, version)
        else:
            record = next_record(manifest, record, version)
        return self._put(manifest, record)

    def _put(self, manifest: Manifest, record: Record) -> StoredObject:
        self._version = max(self._version, record.version)
        self._records[manifest.ref] = record
        self._objects[manifest.ref] = stored = stored_object(manifest, record)
        return stored

    def write_status(self, ref: ObjectRef, status: Mapping[str, Any], resource_version: str) -> StoredObject | None:
        """Replace a status; give the object, or None when the status was equal. Raises NotFoundError, ConflictError."""
        if ref not in self._objects:
            raise NotFoundError(f"{ref} does not exist")
        record = self._records[ref]
        if resource_version != str(record.version):
            raise ConflictError(f"{ref} is at resourceVersion {record.version}, not {resource_version}")
        written = json.loads(json.dumps(status))  # As it will be read back, and nobody else's to change.
        if written == (record.status or {}):
            return None
        return self._put(self._given[ref], replace(record, status=written, version=self._version + 1))
