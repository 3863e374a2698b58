"""The manifest files of a folder: which there are, which of them are stable, and what is in them.

What reads the folder blocks; what says which files are stable is pure.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from controller.api.timing import FolderTiming
from controller.store.directory.checking import FileContent, Kinds, check_file
from controller.store.manifest.manifest import Problem

_SUFFIXES = (".yaml", ".yml", ".json")
_LARGEST = 8 * 1024 * 1024  # Bytes. The API server takes 3 MiB per request; a file may hold many objects.


@dataclass(frozen=True, slots=True)
class Stamp:
    """What changes when a file's content does, as far as `stat` can tell: times in nanoseconds, size in bytes."""

    size: int
    modified: int
    changed: int
    inode: int


class UnreadableFileError(Exception):
    """A file that is there but cannot be read as text; `line` from 1."""

    def __init__(self, message: str, line: int = 1) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


def is_manifest(relative: Path) -> bool:
    """Whether a path inside the folder is a manifest: no part hidden (`.git`, `..data`, `.x.swp`), no backup file."""
    hidden = any(part.startswith(".") for part in relative.parts)
    return not hidden and not relative.name.startswith("#") and relative.name.endswith(_SUFFIXES)


@dataclass(frozen=True, slots=True)
class FolderListing:
    """One scan of the folder, paths relative to it.

    `unlisted` names what could not be listed and why; nothing is known of the files at or below such a path.
    """

    files: Mapping[str, Stamp]
    unlisted: Mapping[str, str]


def list_files(directory: Path) -> FolderListing:
    """Every manifest in the folder and below, links followed. Raises OSError when the folder itself is not listed."""
    unlisted: dict[str, str] = {}
    return FolderListing(dict(_walk(directory, "", (), unlisted)), unlisted)


def _walk(
    directory: Path, prefix: str, parents: tuple[tuple[int, int], ...], unlisted: dict[str, str]
) -> Iterator[tuple[str, Stamp]]:
    status = directory.stat()
    here = (status.st_dev, status.st_ino)
    if here in parents:  # A link to a folder above.
        return
    with os.scandir(directory) as entries:
        for entry in entries:
            relative = prefix + entry.name
            if entry.name.startswith("."):
                continue
            try:
                if entry.is_dir():
                    yield from _walk(Path(entry.path), relative + "/", (*parents, here), unlisted)
                elif is_manifest(Path(relative)) and entry.is_file():
                    yield relative, _stamp(entry.stat())
            except FileNotFoundError:
                continue  # Removed during the scan.
            except OSError as error:
                unlisted[relative] = error.strerror or type(error).__name__


def _stamp(status: os.stat_result) -> Stamp:
    return Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)


def read_file(path: Path, expected: Stamp) -> str | None:
    """The text of a file, or None when it is no longer what `expected` says. Raises UnreadableFileError."""
    if expected.size > _LARGEST:
        raise UnreadableFileError(f"must be at most {_LARGEST} bytes, has {expected.size}")
    try:
        content = path.read_bytes()
        if _stamp(path.stat()) != expected:
            return None
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UnreadableFileError(f"cannot be read: {error.strerror}") from error
    try:
        # YAML 1.2.2, section 5.2. Of what Windows writes, go-yaml reads both as well.
        is_utf_16 = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        return content.decode("utf-16" if is_utf_16 else "utf-8")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise UnreadableFileError(
            "is not UTF-8 text" if not is_utf_16 else "is not UTF-16 text, as its first bytes say", line
        ) from None  # The cause holds the content.


NEVER_READ = Stamp(size=-1, modified=0, changed=0, inode=0)  # Of a file that an earlier run read; no real one is so.


@dataclass(frozen=True, slots=True)
class TrackedFile:
    """How a file looks, and since when (seconds); a stamp of None is a file that is gone."""

    stamp: Stamp | None
    since: float


def track(before: Mapping[str, TrackedFile], listing: Mapping[str, Stamp], now: float) -> dict[str, TrackedFile]:
    """Return how every file looks after one scan of the folder, files that have gone included."""
    tracked = {}
    for file in before.keys() | listing.keys():
        stamp, last = listing.get(file), before.get(file)
        tracked[file] = last if last is not None and last.stamp == stamp else TrackedFile(stamp, now)
    return tracked


def changed_files(tracked: Mapping[str, TrackedFile], accepted: Mapping[str, Stamp]) -> dict[str, TrackedFile]:
    """Return the files that no longer look as when their content was last accepted."""
    return {file: one for file, one in tracked.items() if one.stamp != accepted.get(file)}


def stable_files(changes: Mapping[str, TrackedFile], now: float, timing: FolderTiming) -> dict[str, TrackedFile]:
    """Return the changes worth reading: each file at rest, and no other in motion, or not waited for any longer."""
    moving = any(now - one.since < timing.quiet for one in changes.values())
    wait = timing.together if moving else timing.quiet
    return {file: one for file, one in changes.items() if now - one.since >= wait}


def next_scan(
    changes: Mapping[str, TrackedFile], quiet_periods: Mapping[str, float], now: float, timing: FolderTiming
) -> float | None:
    """Seconds until one of the changes may be accepted, given how long each must rest; None without changes."""
    due = (one.since + quiet_periods.get(file, timing.quiet) - now for file, one in changes.items())
    soonest = min(due, default=None)
    return None if soonest is None else max(soonest, timing.look_again)


def read_files(directory: Path, stamps: Mapping[str, Stamp | None], kinds: Kinds) -> dict[str, FileContent | None]:
    """What each file says, None for one that is gone (no stamp). Files that changed meanwhile are left out."""
    contents: dict[str, FileContent | None] = {}
    for file, stamp in sorted(stamps.items()):
        if stamp is None:
            contents[file] = None
            continue
        try:
            text = read_file(directory / file, stamp)
        except UnreadableFileError as error:
            contents[file] = FileContent(problems=(Problem(file, error.line, "", error.message),))
            continue
        if text is not None:
            contents[file] = check_file(file, text, kinds)
    return contents
