"""When a file that changed may be believed: not while somebody is still writing it.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from controller.api.timing import FolderTiming
from controller.store.directory.files import Stamp

UNSEEN = Stamp(size=-1, modified=0, changed=0, inode=0)  # Of a file that an earlier run read; equal to no real one.


@dataclass(frozen=True, slots=True)
class Sighting:
    """How a file looks, and since when; a stamp of None is a file that is gone."""

    stamp: Stamp | None
    since: float


def sight(before: Mapping[str, Sighting], listing: Mapping[str, Stamp], now: float) -> dict[str, Sighting]:
    """What is seen after one look at the folder, files that have gone included."""
    sightings = {}
    for file in before.keys() | listing.keys():
        stamp, last = listing.get(file), before.get(file)
        sightings[file] = last if last is not None and last.stamp == stamp else Sighting(stamp, now)
    return sightings


def changed(sightings: Mapping[str, Sighting], believed: Mapping[str, Stamp]) -> dict[str, Sighting]:
    """The files that no longer look as when they were last believed."""
    return {file: seen for file, seen in sightings.items() if seen.stamp != believed.get(file)}


def settled(changes: Mapping[str, Sighting], now: float, timing: FolderTiming) -> dict[str, Sighting]:
    """The changes worth reading: each file at rest, and nothing else in motion or not waited for any longer."""
    moving = any(now - seen.since < timing.quiet for seen in changes.values())
    wait = timing.together if moving else timing.quiet
    return {file: seen for file, seen in changes.items() if now - seen.since >= wait}


def next_look(
    changes: Mapping[str, Sighting], patience: Mapping[str, float], now: float, timing: FolderTiming
) -> float | None:
    """Seconds until one of the changes may be believed, given how long each must rest; None without changes."""
    due = (seen.since + patience.get(file, timing.quiet) - now for file, seen in changes.items())
    soonest = min(due, default=None)
    return None if soonest is None else max(soonest, timing.look_again)
