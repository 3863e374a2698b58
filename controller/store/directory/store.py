"""Says when to look at the folder: at once when the system reports a change, else every so often."""

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
    UNSEEN,
    Listing,
    Sighting,
    Stamp,
    changed,
    is_manifest,
    list_files,
    next_look,
    read_files,
    settled,
    sight,
)
from controller.store.directory.folder import Birth, Folder
from controller.store.directory.state import Saving, State, load_state
from controller.store.manifest.manifest import Problem
from controller.store.objects import ObjectRef
from controller.store.watches import Watch, Watches

log = logging.getLogger(__name__)


class Hints:
    """Reports of changes, carrying no meaning: whoever is woken looks at the whole folder."""

    def __init__(self, directory: Path, timing: FolderTiming) -> None:
        self._directory = directory
        self._news = asyncio.Event()
        self._stop = asyncio.Event()
        self._relist, self._unaided = timing.relist, timing.relist_unaided

    async def wait(self, longest: float | None) -> None:
        """Return at the next report, or after `longest` seconds (None: when it is time to look again)."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._relist if longest is None else min(longest, self._relist)):
                await self._news.wait()
        self._news.clear()

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
                self._news.set()
        except (OSError, RuntimeError) as error:  # RuntimeError is the root of what watchfiles raises.
            log.warning("no reports of changed files, looking more often", extra={"error": error})
            self._relist = self._unaided
            self._news.set()


class DirectoryStore:
    """An ObjectStore over a folder of manifests; `async with` runs it.

    A change takes effect once its file is at rest (`settling`). A file with any problem keeps its last good objects and
    is in `problems`, which `report` is called with at each change. Documents of kinds not in `kinds` are ignored.
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
        self._folder = Folder(State(), 0, kinds, timing)
        self._watches = Watches(lambda: self._folder.objects)
        self._hints = Hints(directory, timing)
        self._saving = Saving(state_file, lambda: self._folder.state, timing)
        self._owner: asyncio.Task[None] | None = None
        self._tasks: tuple[asyncio.Task[None], ...] = ()
        self._sightings: Mapping[str, Sighting] = {}
        self._believed: dict[str, Stamp] = {}
        self._listed = False
        self._unlisted: tuple[Problem, ...] = ()
        self._problems: tuple[Problem, ...] = ()

    async def __aenter__(self) -> DirectoryStore:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin to look at the folder. Raises OSError when it, or the state file, cannot be read. A store runs once."""
        await asyncio.to_thread(list_files, self._directory)
        state = await asyncio.to_thread(load_state, self._state_file)
        # Versions given since the state was last written are lost in a crash; the clock is past them.
        self._folder = Folder(state, time.time_ns() // 1_000_000, self._kinds, self._timing)
        self._believed = dict.fromkeys(self._folder.files, UNSEEN)
        self._sightings = {file: Sighting(None, asyncio.get_running_loop().time()) for file in self._folder.files}
        # In this order: what happens after the hints' first step is reported, what happened before is seen.
        hints = asyncio.create_task(self._hints.run(), name="folder-hints")
        saving = asyncio.create_task(self._saving.run(), name="state-saving")
        self._tasks = (hints, saving)
        self._owner = asyncio.create_task(self._own(), name="folder-store")
        self._owner.add_done_callback(self._owner_ended)

    async def close(self) -> None:
        """End every watch, write the state, stop all tasks."""
        self._watches.close()
        self._hints.stop()
        if self._owner is not None:
            self._owner.cancel()
            await asyncio.gather(self._owner, return_exceptions=True)
        self._saving.stop()
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

    def watch(self, kinds: Collection[str]) -> Watch:
        """Watch some kinds; the first batch comes when the whole folder was read once."""
        return self._watches.open(kinds)

    async def patch_status(self, ref: ObjectRef, status: Mapping[str, Any], resource_version: str) -> None:
        """Replace a status. Raises ConflictError or NotFoundError. It is on disk a moment later."""
        written = self._folder.write_status(ref, status, resource_version)
        if written is not None:
            self._watches.publish((written,), ())
            self._saving.mark()

    async def _own(self) -> None:
        clock = asyncio.get_running_loop().time
        give_up = clock() + self._timing.first_list
        while True:
            wait = await self._look(clock())
            if not self._listed and (wait is None or clock() >= give_up):
                self._listed = True
                self._update()
            await self._hints.wait(wait)

    async def _look(self, now: float) -> float | None:
        """Look once at the whole folder. Seconds until the next look is due, None when nothing is in motion."""
        try:
            listing = await asyncio.to_thread(list_files, self._directory)
        except OSError as error:
            listing = Listing({}, {"": error.strerror or type(error).__name__})
        self._unlisted = tuple(
            Problem(path or str(self._directory), 1, "", f"cannot be listed: {why}")
            for path, why in sorted(listing.unlisted.items())
        )
        self._sightings = sight(self._sightings, dict(listing.files) | self._out_of_sight(listing), now)
        ready = settled(changed(self._sightings, self._believed), now, self._timing)
        patience: Mapping[str, float] = {}
        if ready:
            stamps = {file: seen.stamp for file, seen in ready.items()}
            contents = await asyncio.to_thread(read_files, self._directory, stamps, self._kinds)
            patience = self._folder.patience(contents)
            self._believe(
                {file: content for file, content in contents.items() if now - ready[file].since >= patience[file]}
            )
        if self._listed:
            self._tell((*self._unlisted, *self._folder.problems))
        return next_look(changed(self._sightings, self._believed), patience, now, self._timing)

    def _out_of_sight(self, listing: Listing) -> dict[str, Stamp]:
        """The files that may still be there, though nobody can tell: they stay as they were believed."""
        hidden = tuple(f"{path}/" if path else "" for path in listing.unlisted)
        return {
            file: stamp
            for file, stamp in self._believed.items()
            if file in listing.unlisted or (hidden and file.startswith(hidden))
        }

    def _believe(self, contents: Mapping[str, FileContent | None]) -> None:
        sightings = dict(self._sightings)
        for file, content in contents.items():
            stamp = sightings[file].stamp
            if content is None or stamp is None:
                del sightings[file]
                self._believed.pop(file, None)
            else:
                self._believed[file] = stamp
                _log_notes(file, set(content.notes) - set(self._folder.content(file).notes))
            self._folder.believe(file, content)
        self._sightings = sightings
        if self._listed and contents:
            self._update()

    def _update(self) -> None:
        birth = Birth(datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"), lambda: str(uuid.uuid4()))
        changes, deleted = self._folder.update(birth)
        if self._watches.started:
            self._watches.publish(changes, deleted)
        else:
            self._watches.start()
        self._saving.mark()
        self._tell((*self._unlisted, *self._folder.problems))

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        if problems == self._problems:
            return
        for problem in sorted(set(problems) - set(self._problems)):
            log.error("mistake in a file", extra={"at": f"{problem.file}:{problem.line}", "problem": _words(problem)})
        for file in sorted({p.file for p in self._problems} - {p.file for p in problems}):
            log.info("file accepted", extra={"file": file})
        self._problems = problems
        self._report(problems)


def _log_notes(file: str, notes: set[str]) -> None:
    for note in sorted(notes):
        log.info("note on a file", extra={"file": file, "note": note})


def _words(problem: Problem) -> str:
    return f"{problem.field}: {problem.message}" if problem.field else problem.message
