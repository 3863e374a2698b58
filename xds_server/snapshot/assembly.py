"""One snapshot from the resources of many owners, each of whom changes alone."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

from xds_server.snapshot.snapshot import EMPTY, Resource, ResourceKey, Snapshot, whole_of

Owner = TypeVar("Owner", bound=Hashable)


_NOTHING: Mapping[ResourceKey, Resource] = MappingProxyType({})


def _nobody(_: object) -> bool:
    return False


class Assembly(Generic[Owner]):
    """The snapshot, and whose each resource is.

    A resource that several owners bring (the cluster of a backend they share) is there as long as one of them does. If
    they bring different ones (what is served on a port that passes from one to another), it is that of the owner who
    was the last to begin; once that one stops, it is again that of the one before. An owner who
    `yields` goes behind all who do not, whenever they began.

    Of a resource whose parts they bring, the snapshot has the whole alone: it changes with any of its parts.
    """

    def __init__(self, yields: Callable[[Owner], bool] = _nobody) -> None:
        self.snapshot: Snapshot = EMPTY
        self._yields = yields
        self._brought: dict[Owner, dict[ResourceKey, Resource]] = {}
        # In the order in which they began to bring it.
        self._owners: dict[ResourceKey, dict[Owner, None]] = {}
        # By the whole: its parts, as they are in the snapshot.
        self._parts: dict[ResourceKey, dict[ResourceKey, Resource]] = {}
        self._wholes: dict[ResourceKey, ResourceKey] = {}

    def replace(self, changes: Iterable[tuple[Owner, tuple[Resource, ...]]]) -> frozenset[ResourceKey]:
        """Give owners new resources (none removes the owner); return the keys of all that differs from before.

        The snapshot stays the very same object when nothing does.
        """
        touched: dict[ResourceKey, None] = {}
        for owner, resources in changes:
            before = self._brought.pop(owner, {})
            brings = {one.key: one for one in resources}
            for key in before:
                if key not in brings:
                    del self._owners[key][owner]
                touched[key] = None
            for key in brings:
                self._owners.setdefault(key, {})[owner] = None
                touched[key] = None
            if brings:
                self._brought[owner] = brings
        upserts, removed = [], []
        for key, wanted in self._wanted_of(touched).items():
            present = self.snapshot.find(key)
            if wanted is None and present:
                removed.append(key)
            elif wanted and (present is None or present.version != wanted.version):
                upserts.append(wanted)
        if upserts or removed:
            self.snapshot = self.snapshot.with_changes(upserts, removed)
        return frozenset((*(one.key for one in upserts), *removed))

    def brought_by(self, owner: Owner) -> Mapping[ResourceKey, Resource]:
        """Return what an owner brings."""
        return MappingProxyType(self._brought[owner]) if owner in self._brought else _NOTHING

    def owners_of(self, keys: Iterable[ResourceKey]) -> frozenset[Owner]:
        """Find whose these resources are; a whole is of all who bring a part of it."""
        found = (part for key in keys for part in (key, *self._parts.get(key, ())))
        return frozenset(owner for key in found for owner in self._owners.get(key, ()))

    def versions_of(self, owner: Owner) -> dict[ResourceKey, str]:
        """Return what clients have of an owner once they have everything, by version: of parts the whole."""
        versions: dict[ResourceKey, str] = {}
        for key, brought in self.brought_by(owner).items():
            whole = brought.part_of and self.snapshot.find(brought.part_of)
            versions[whole.key if whole else key] = whole.version if whole else brought.version
        return versions

    def _wanted_of(self, touched: Iterable[ResourceKey]) -> dict[ResourceKey, Resource | None]:
        """Say what of these the snapshot shall have (None: nothing); of parts the wholes."""
        found: dict[ResourceKey, Resource | None] = {}
        wholes: dict[ResourceKey, None] = {}
        for key in touched:
            wanted = self._wanted(key)
            if wanted is None:
                self._owners.pop(key, None)
            if whole := self._take_part(key, wanted):
                wholes[whole] = None
            else:
                found[key] = wanted
        for whole in wholes:
            parts = self._parts.get(whole)
            found[whole] = whole_of(whole, parts.values()) if parts else None
        return found

    def _take_part(self, key: ResourceKey, part: Resource | None) -> ResourceKey | None:
        """Put a part in its place, or take it out (None); return the whole that it is or was a part of, if any."""
        if part and part.part_of:
            self._wholes[key] = part.part_of
            self._parts.setdefault(part.part_of, {})[key] = part
            return part.part_of
        whole = self._wholes.pop(key, None)
        if whole:
            del self._parts[whole][key]
            if not self._parts[whole]:
                del self._parts[whole]
        return whole

    def _wanted(self, key: ResourceKey) -> Resource | None:
        owners = self._owners.get(key)
        if not owners:
            return None
        last = next(reversed(owners))
        return self._brought[next((one for one in reversed(owners) if not self._yields(one)), last)][key]
