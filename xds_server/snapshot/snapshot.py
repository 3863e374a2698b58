"""An immutable state of all resources, and how to get from one to the next."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import NamedTuple, Self

from xds_server.snapshot.layered import Layered
from xds_server.snapshot.types import MAKE_BEFORE_BREAK


class ResourceKey(NamedTuple):
    """The identity of a resource: its type URL and its name."""

    type_url: str
    name: str


@dataclass(frozen=True, slots=True)
class Resource:
    """One packed Envoy message.

    `body` is the serialised message (what goes into `Any.value`); `version` is the hash of it, so equal content has an
    equal version on every replica and after every restart. `requires` names what an Envoy must hold before it is given
    this one (a route requires the clusters it names), and what must not be taken from it while it still holds this one.
    """

    key: ResourceKey
    version: str
    body: bytes = field(repr=False)
    requires: frozenset[ResourceKey] = frozenset()

    @classmethod
    def of(cls, type_url: str, name: str, body: bytes, requires: Iterable[ResourceKey] = ()) -> Self:
        """Pack a serialised message under its content hash (64 bits, hexadecimal)."""
        digest = hashlib.blake2b(body, digest_size=8).hexdigest()
        return cls(ResourceKey(type_url, name), digest, body, frozenset(requires))


def content_version(resources: Mapping[str, Resource]) -> str:
    """Return the content hash of a set of resources by name, whatever their order."""
    digest = hashlib.blake2b(digest_size=8)
    for name, resource in sorted(resources.items()):
        digest.update(f"{name}\0{resource.version}\0".encode())
    return digest.hexdigest()


class InconsistentSnapshotError(Exception):
    """Some resource requires another that the snapshot does not hold; the message names both."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All resources by type URL and name. Build one with `Snapshot.of`, the next one with `with_changes`."""

    by_type: Mapping[str, Layered[Resource]]

    @classmethod
    def of(cls, resources: Iterable[Resource]) -> Self:
        """Build a snapshot from nothing."""
        return cls(MappingProxyType({t: Layered[Resource]() for t in MAKE_BEFORE_BREAK})).with_changes(resources)

    def with_changes(self, upserts: Iterable[Resource] = (), removed: Iterable[ResourceKey] = ()) -> Self:
        """Return the snapshot that has `upserts` and lacks `removed`; what they do not touch is shared, not copied."""
        changes: dict[str, dict[str, Resource | None]] = {}
        for key in removed:
            changes.setdefault(key.type_url, {})[key.name] = None
        for resource in upserts:
            changes.setdefault(resource.key.type_url, {})[resource.key.name] = resource
        changed = {type_url: self.by_type[type_url].with_changes(names) for type_url, names in changes.items()}
        return type(self)(MappingProxyType({**self.by_type, **changed}))

    def find(self, key: ResourceKey) -> Resource | None:
        """Return the resource of this key, if there is one."""
        resources = self.by_type.get(key.type_url)
        return resources.get(key.name) if resources is not None else None

    def type_version(self, type_url: str) -> str:
        """Return the content hash of all resources of one type (`version_info` of state of the world)."""
        return content_version(self.by_type.get(type_url, {}))

    def check(self) -> None:
        """Raise InconsistentSnapshotError unless everything required is there."""
        for resources in self.by_type.values():
            for resource in resources.values():
                for required in resource.requires:
                    if self.find(required) is None:
                        raise InconsistentSnapshotError(f"{resource.key} requires {required}, which is missing")


EMPTY = Snapshot.of(())
