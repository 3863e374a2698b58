"""One snapshot from the resources of many owners, each of whom changes alone."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

from xds_server.snapshot.snapshot import EMPTY, Resource, ResourceKey, Snapshot

Owner = TypeVar("Owner", bound=Hashable)


class Assembly(Generic[Owner]):
    """The snapshot, and whose each resource is.

    A resource that several owners bring (the cluster of a backend they share) is there as long as one of them does.
    """

    def __init__(self) -> None:
        self.snapshot: Snapshot = EMPTY
        self._resources: dict[Owner, dict[ResourceKey, str]] = {}
        self._owners: dict[ResourceKey, set[Owner]] = {}

    def replace(self, changes: Iterable[tuple[Owner, tuple[Resource, ...]]]) -> frozenset[ResourceKey]:
        """Give owners new resources (none removes the owner); return the keys of all that differs from before.

        The snapshot stays the very same object when nothing does.
        """
        brought: dict[ResourceKey, Resource] = {}
        left: set[ResourceKey] = set()
        for owner, resources in changes:
            for key in self._resources.pop(owner, {}):
                self._owners[key].discard(owner)
                left.add(key)
            for one in resources:
                self._owners.setdefault(one.key, set()).add(owner)
                brought[one.key] = one
            if resources:
                self._resources[owner] = {one.key: one.version for one in resources}
        gone = {key for key in left | brought.keys() if not self._owners[key]}
        for key in gone:
            del self._owners[key]
        upserts = [one for key, one in brought.items() if key not in gone and self._differs(one)]
        removed = [key for key in gone if self.snapshot.find(key)]
        if upserts or removed:
            self.snapshot = self.snapshot.with_changes(upserts, removed)
        return frozenset((*(one.key for one in upserts), *removed))

    def versions(self, owner: Owner) -> Iterable[tuple[ResourceKey, str]]:
        """List what an owner brought: key and version of each resource."""
        return tuple(self._resources.get(owner, {}).items())

    def owners_of(self, keys: Iterable[ResourceKey]) -> frozenset[Owner]:
        """Find whose these resources are."""
        return frozenset(owner for key in keys for owner in self._owners.get(key, ()))

    def _differs(self, resource: Resource) -> bool:
        present = self.snapshot.find(resource.key)
        return present is None or present.version != resource.version
