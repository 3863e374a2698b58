"""The directory store itself: one task scans the folder, accepts what is at rest, and publishes what changed."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import watchfiles

from controller.api.timing import REAL, FolderTiming
from controller.store.directory.checking import FileContent, Kinds
from controller.store.directory.files import (
    NEVER_READ,
    FolderListing,
    Stamp,
    TrackedFile,
    changed_files,
    is_manifest,
    list_files,
    next_scan,
    read_files,
    stable_files,
    track,
)
from controller.store.directory.folder import Folder
from controller.store.directory.objects import ApplyRequest, Creation, ObjectTable
from controller.store.directory.state import StoreState
from controller.store.directory.state_file import StateWriter, load_state
from controller.store.manifest.manifest import Problem
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import FIELD_MANAGER, UNCONDITIONAL, Precondition, UnavailableError
from controller.store.watches import Watch, Watches

log = logging.getLogger(__name__)


class FolderMonitor:
    """Says when to scan the folder: at once when the system reports a change, else every so often.

    What a report says does not count: whoever is woken scans the whole folder.
    """

    def __init__(self, directory: Path, timing: FolderTiming) -> None:
        self._directory = directory
        self._reported = asyncio.Event()
        self._stop = asyncio.Event()
        self._relist, self._unaided = timing.relist, timing.relist_unaided

    async def wait(self, longest: float | None) -> None:
        """Return at the next report, or after `longest` seconds (None: when it is time to scan again)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._relist if longest is None else min(longest, self._relist)):
                await self._reported.wait()
        self._reported.clear()

    def stop(self) -> None:
        """Let `run` return."""
        self._stop.set()

    async def run(self) -> None:
        """Listen until stopped; what happens after its first step is not missed."""
        try:
            async for _ in watchfiles.awatch(
                self._directory,
                watch_filter=None,
                debounce=100,
                step=20,
                stop_event=self._stop,
                ignore_permission_denied=True,
            ):
                self._reported.set()
        except (OSError, RuntimeError) as error:  # RuntimeError is the root of what watchfiles raises.
            log.warning("no reports of changed files, looking more often", extra={"error": error})
            self._relist = self._unaided
            self._reported.set()


class DirectoryStore:
    """An ObjectStore over a folder of manifests; `async with` runs it.

    A change takes effect once its file is at rest. A file with any problem keeps its last good objects and is in
    `problems`, which `report` is called with at each change. Documents of kinds not in `kinds` are ignored.

    Objects that programs write are kept beside the statuses, in the state file, a moment later. What a file defines
    only its author changes: but for `patch_status`, writing it raises RefusedError. When a file begins to define an
    object that a program wrote, it is the file's.
    """

    def __init__(
        self,
        directory: Path,
        state_file: Path,
        kinds: Kinds,
        report: Callable[[tuple[Problem, ...]], None] = lambda problems: None,
        timing: FolderTiming = REAL.folder,
    ) -> None:
        """Raises ValueError when the state file would be read as a manifest."""
        inside = state_file.absolute().is_relative_to(directory.absolute())
        if inside and is_manifest(state_file.absolute().relative_to(directory.absolute())):
            raise ValueError(f"the state file {state_file} must be outside the folder {directory}")
        self._directory = directory
        self._state_file = state_file
        self._kinds = kinds
        self._report = report
        self._timing = timing
        self._folder = Folder({}, kinds, timing)
        self._table = ObjectTable(StoreState(), 0, kinds)
        self._watches = Watches(lambda: self._table.objects)
        self._monitor = FolderMonitor(directory, timing)
        self._state = StateWriter(state_file, lambda: self._table.state(self._folder.manifests), timing)
        self._owner: asyncio.Task[None] | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._tracked: Mapping[str, TrackedFile] = {}
        self._accepted: dict[str, Stamp] = {}
        self._listed = False
        self._unlisted: tuple[Problem, ...] = ()
        self._problems: tuple[Problem, ...] = ()

    async def __aenter__(self) -> DirectoryStore:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to scan the folder. Raises OSError when it, or the state file, cannot be read. A store runs once."""
        await asyncio.to_thread(list_files, self._directory)
        state = await asyncio.to_thread(load_state, self._state_file)
        # Versions given since the state was last written are lost in a crash; the clock is past them.
        self._folder = Folder(state.files, self._kinds, self._timing)
        self._table = ObjectTable(state, time.time_ns() // 1_000_000, self._kinds)
        self._accepted = dict.fromkeys(self._folder.files, NEVER_READ)
        self._tracked = {file: TrackedFile(None, asyncio.get_running_loop().time()) for file in self._folder.files}
        # In this order: what happens after the monitor's first step is reported, what happened before is scanned.
        monitor = asyncio.create_task(self._monitor.run(), name="folder-monitor")
        saving = asyncio.create_task(self._state.run(), name="state-writer")
        self._tasks = (monitor, saving)
        self._owner = asyncio.create_task(self._own(), name="folder-store")
        self._owner.add_done_callback(self._owner_ended)

    async def close(self) -> None:
        """End every watch, write the state, stop all tasks."""
        self._watches.close()
        self._monitor.stop()
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.gather(self._owner, return_exceptions=True)
        self._state.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _owner_ended(self, owner: asyncio.Task[None]) -> None:
        failure = None if owner.cancelled() else owner.exception()
        if failure is not None:
            # The words of the failure may quote a file.
            log.error("folder store failed", extra={"error": type(failure).__name__})
        self._watches.close(failure)

    @property
    def problems(self) -> tuple[Problem, ...]:
        """What is wrong with the files now, in the order of files and lines."""
        return self._problems

    def defined_at(self, ref: ObjectRef) -> str | None:
        """Return the file that defines an object and the line of its name, as `chat.yaml:4`; None if no file does."""
        claim = self._folder.claim(ref)
        return str(self._directory / str(claim)) if claim else None

    def watch(self, kinds: Collection[str]) -> Watch:
        """Watch some kinds; the first batch comes when the whole folder was read once."""
        return self._watches.open(kinds)

    async def read(self, ref: ObjectRef) -> StoredObject:
        """See `ObjectReader`."""
        return self._table.find(ref)

    async def create(self, raw: Mapping[str, Any]) -> StoredObject:
        """See `ObjectWriter`."""
        return self._written(lambda: self._table.create(raw, _creation()))

    async def update(self, raw: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        """See `ObjectWriter`."""
        return self._written(lambda: self._table.update(raw, precondition, _creation()))

    async def apply(
        self,
        raw: Mapping[str, Any],
        manager: str = FIELD_MANAGER,
        *,
        force: bool = False,
        precondition: Precondition = UNCONDITIONAL,
    ) -> StoredObject:
        """See `ObjectWriter`. A list is one field."""
        return self._written(lambda: self._table.apply(ApplyRequest(raw, manager, force), precondition, _creation()))

    async def patch(
        self, ref: ObjectRef, changes: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        """See `ObjectWriter`."""
        return self._written(lambda: self._table.patch(ref, changes, precondition, _creation()))

    async def delete(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> None:
        """See `ObjectWriter`. It is gone at once: finalizers hold nothing here."""
        self._check_listed()
        self._table.delete(ref, precondition)
        self._watches.publish((), (ref,))
        self._state.mark_dirty()

    async def release_fields(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        """See `ObjectWriter`."""
        return self._written(lambda: self._table.release_fields(ref, precondition))

    async def patch_status(
        self, ref: ObjectRef, status: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        """See `ObjectWriter`."""
        return self._published(lambda: self._table.write_status(ref, status, precondition))

    def _written(self, write: Callable[[], StoredObject]) -> StoredObject:
        self._check_listed()
        self._state.mark_dirty()  # Whose a field is may change, though no field does.
        return self._published(write)

    def _published(self, write: Callable[[], StoredObject]) -> StoredObject:
        version = self._table.version
        stored = write()
        if self._table.version != version:
            self._watches.publish((stored,), ())
            self._state.mark_dirty()
        return stored

    def _check_listed(self) -> None:
        """Until the folder was read once, nobody knows which objects are a file's."""
        if not self._watches.started:
            raise UnavailableError(f"{self._directory}: not read yet", unsent=True)

    async def _own(self) -> None:
        clock = asyncio.get_running_loop().time
        give_up = clock() + self._timing.first_list
        while True:
            wait = await self._scan(clock())
            if not self._listed and (wait is None or clock() >= give_up):
                self._listed = True
                self._update()
            await self._monitor.wait(wait)

    async def _scan(self, now: float) -> float | None:
        """Scan the whole folder once. Seconds until the next scan is due, None when nothing is in motion."""
        try:
            listing = await asyncio.to_thread(list_files, self._directory)
        except OSError as error:
            listing = FolderListing({}, {"": error.strerror or type(error).__name__})
        self._unlisted = tuple(
            Problem(path or str(self._directory), 1, "", f"cannot be listed: {why}")
            for path, why in sorted(listing.unlisted.items())
        )
        self._tracked = track(self._tracked, dict(listing.files) | self._hidden(listing), now)
        stable = stable_files(changed_files(self._tracked, self._accepted), now, self._timing)
        quiet_periods: Mapping[str, float] = {}
        if stable:
            stamps = {file: tracked.stamp for file, tracked in stable.items()}
            contents = await asyncio.to_thread(read_files, self._directory, stamps, self._kinds)
            quiet_periods = self._folder.quiet_periods(contents)
            self._accept(
                {file: one for file, one in contents.items() if now - stable[file].since >= quiet_periods[file]}
            )
        if self._listed:
            self._report_problems()
        return next_scan(changed_files(self._tracked, self._accepted), quiet_periods, now, self._timing)

    def _hidden(self, listing: FolderListing) -> dict[str, Stamp]:
        """The files that may still be there, though nobody can tell: they stay as they were accepted."""
        hidden = tuple(f"{path}/" if path else "" for path in listing.unlisted)
        return {
            file: stamp
            for file, stamp in self._accepted.items()
            if file in listing.unlisted or (hidden and file.startswith(hidden))
        }

    def _accept(self, contents: Mapping[str, FileContent | None]) -> None:
        tracked = dict(self._tracked)
        for file, content in contents.items():
            stamp = tracked[file].stamp
            if content is None or stamp is None:
                del tracked[file]
                self._accepted.pop(file, None)
            else:
                self._accepted[file] = stamp
                _log_notes(file, set(content.notes) - set(self._folder.content(file).notes))
            self._folder.accept(file, content)
        self._tracked = tracked
        if self._listed and contents:
            self._update()

    def _update(self) -> None:
        claims = self._folder.define()
        redefinition = self._table.define(claims, _creation())
        for ref in redefinition.replaced:
            log.info("a file defines what a program wrote", extra={"object": str(ref), "at": str(claims[ref])})
        if self._watches.started:
            self._watches.publish(redefinition.changed, redefinition.deleted)
        else:
            self._watches.start()
        self._state.mark_dirty()
        self._report_problems()

    def _report_problems(self) -> None:
        problems = (*self._unlisted, *self._folder.problems)
        if problems == self._problems:
            return
        for problem in sorted(set(problems) - set(self._problems)):
            log.error("mistake in a file", extra={"at": f"{problem.file}:{problem.line}", "problem": _words(problem)})
        for file in sorted({p.file for p in self._problems} - {p.file for p in problems}):
            log.info("file accepted", extra={"file": file})
        self._problems = problems
        self._report(problems)


def _creation() -> Creation:
    return Creation(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), lambda: str(uuid.uuid4()))


def _log_notes(file: str, notes: set[str]) -> None:
    for note in sorted(notes):
        log.info("note on a file", extra={"file": file, "note": note})


def _words(problem: Problem) -> str:
    return f"{problem.field}: {problem.message}" if problem.field else problem.message
