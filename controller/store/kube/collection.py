"""What is believed of all that the API server says about one kind. Pure; seconds of a clock come in as arguments."""

from __future__ import annotations

from collections.abc import Collection as AnyCollection
from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.store.objects import ObjectRef, StoredObject

_REMEMBERED = 1000  # Deletions. News that are older than one come at most as late as an answer to a request may.


@dataclass(frozen=True, slots=True)
class Changes:
    """What the readers of a store do not know yet."""

    changed: tuple[StoredObject, ...] = ()
    deleted: tuple[ObjectRef, ...] = ()


@dataclass(frozen=True, slots=True)
class ObjectList:
    """A consistent list of all objects, at one version."""

    objects: Mapping[ObjectRef, StoredObject] = field(repr=False)
    version: int


@dataclass(frozen=True, slots=True)
class SuspectList:
    """A list that was not believed: the reason, since when (seconds), and what was in it."""

    reason: str
    since: float
    refs: AnyCollection[ObjectRef] = field(repr=False)
    version: int


class Collection:
    """The objects of one kind. Owned by one task.

    An implausible list is believed when another one, `second_look` seconds later, says so too. Of the status of an
    object only `status_fields` are remembered (None: all of it).
    """

    def __init__(self, second_look: float, status_fields: AnyCollection[str] | None = None) -> None:
        self.second_look = second_look
        self._status_fields = status_fields
        self._objects: dict[ObjectRef, StoredObject] = {}
        self._deleted: dict[ObjectRef, int] = {}
        self.version = 0  # Everything up to here is known.
        self.listed = False
        self.suspect: SuspectList | None = None

    @property
    def objects(self) -> AnyCollection[StoredObject]:
        """All objects."""
        return self._objects.values()

    def find(self, ref: ObjectRef) -> StoredObject | None:
        """One object, or None."""
        return self._objects.get(ref)

    def bookmark(self, version: int) -> None:
        """Everything up to this version is known."""
        self.version = max(self.version, version)

    def apply_event(self, event: str, stored: StoredObject) -> Changes:
        """Take an event of a watch: `ADDED`, `MODIFIED`, or `DELETED`, which carries the deletion's own version."""
        self.bookmark(_version(stored))
        if event != "DELETED":
            return self.put(stored)
        if _version(stored) <= self._known_version(stored.ref):
            return Changes()
        self._remember_deletion(stored.ref, _version(stored))
        return Changes(deleted=(stored.ref,) if self._objects.pop(stored.ref, None) else ())

    def put(self, stored: StoredObject) -> Changes:
        """Take an object as it was at its version: from an event, or returned by a write of our own."""
        if _version(stored) <= self._known_version(stored.ref):
            return Changes()
        self._objects[stored.ref] = read = self._as_read(stored)
        return Changes(changed=(read,))

    def replace(self, listing: ObjectList, now: float) -> Changes:
        """Replace everything by a list if it is believed; otherwise nothing changes and `suspect` says why.

        Implausible is a list that lacks more than half of the objects, an empty one included, or whose version lies
        behind what was known before: etcd may have lost its data or come back from a backup. A second list,
        `second_look` seconds later, is believed unless it is as implausible to one who believed the first.
        """
        reason = implausible(self._objects.keys(), self.version, listing) if self.listed else ""
        first = self.suspect
        if reason and (first is None or implausible(first.refs, first.version, listing)):
            self.suspect = SuspectList(reason, now, listing.objects.keys(), listing.version)
            return Changes()
        if reason and first is not None and now - first.since < self.second_look:
            return Changes()
        changes = self._replace(listing, rewound=listing.version < self.version)
        self.suspect, self.listed, self.version = None, True, listing.version
        return changes

    def _replace(self, listing: ObjectList, *, rewound: bool) -> Changes:
        """Let a list overrule everything but news of later versions of the same history."""
        names = self._objects.keys() | self._deleted.keys()
        later = set() if rewound else {ref for ref in names if self._known_version(ref) > listing.version}
        gone = tuple(ref for ref in self._objects if ref not in listing.objects and ref not in later)
        changed = tuple(
            self._as_read(stored)
            for ref, stored in listing.objects.items()
            if ref not in later and not self._holds(stored)
        )
        self._deleted = {ref: version for ref, version in self._deleted.items() if ref in later}
        for ref in gone:
            del self._objects[ref]
            self._remember_deletion(ref, listing.version)
        self._objects.update((stored.ref, stored) for stored in changed)
        return Changes(changed, gone)

    def _as_read(self, stored: StoredObject) -> StoredObject:
        """Leave out what nobody here reads."""
        if self._status_fields is None or not stored.status:
            return stored
        status = {name: value for name, value in stored.status.items() if name in self._status_fields}
        return StoredObject(stored.ref, {**stored.raw, "status": status})

    def _holds(self, stored: StoredObject) -> bool:
        held = self._objects.get(stored.ref)
        return held is not None and held.same_as(stored)

    def _known_version(self, ref: ObjectRef) -> int:
        """The version up to which the history of a name is known."""
        held = self._objects.get(ref)
        return self._deleted.get(ref, 0) if held is None else _version(held)

    def _remember_deletion(self, ref: ObjectRef, version: int) -> None:
        self._deleted.pop(ref, None)
        self._deleted[ref] = version
        if len(self._deleted) > _REMEMBERED:
            del self._deleted[next(iter(self._deleted))]


def implausible(known: AnyCollection[ObjectRef], version: int, listing: ObjectList) -> str:
    """Why a list is not believed at once by one who knows these objects, up to this version; empty if it is."""
    if listing.version < version:
        return f"its resourceVersion {listing.version} lies behind {version}, which was seen before"
    missing = sum(ref not in listing.objects for ref in known)
    return f"it lacks {missing} of {len(known)} objects" if missing * 2 > len(known) else ""


def _version(stored: StoredObject) -> int:
    return int(stored.resource_version)
