"""Snapshots: all resources of a scope at one moment, immutable, with the types in make-before-break order.

Source of the order: Envoy, "xDS protocol", section "Eventual consistency considerations": CDS, EDS, LDS, RDS on the way
in; what was removed of CDS and EDS goes after RDS. Secrets come first, since clusters and listeners warm until they
have theirs. Scoped routes come last: each names a route configuration, and a host is told only once that is there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, Self, TypeVar

PREFIX = "type.googleapis.com/"

SECRET = PREFIX + "envoy.extensions.transport_sockets.tls.v3.Secret"
CLUSTER = PREFIX + "envoy.config.cluster.v3.Cluster"
ENDPOINT = PREFIX + "envoy.config.endpoint.v3.ClusterLoadAssignment"
LISTENER = PREFIX + "envoy.config.listener.v3.Listener"
ROUTE = PREFIX + "envoy.config.route.v3.RouteConfiguration"
SCOPED_ROUTE = PREFIX + "envoy.config.route.v3.ScopedRouteConfiguration"

MAKE_BEFORE_BREAK = (SECRET, CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE)

SHORT = {SECRET: "SDS", CLUSTER: "CDS", ENDPOINT: "EDS", LISTENER: "LDS", ROUTE: "RDS", SCOPED_ROUTE: "SRDS"}


V = TypeVar("V")
T = TypeVar("T")


class Layered(Mapping[str, V], Generic[V]):
    """A large mapping below, and above it what changed since: None for what is gone.

    The two become one as soon as the changes are more than the square root of what is there, so neither copying the
    changes nor copying everything now and then costs much for each of them.
    """

    __slots__ = ("_below", "_changes", "_derived", "_length")

    def __init__(self, below: Mapping[str, V] | None = None) -> None:
        self._below: dict[str, V] = dict(below or {})
        self._changes: dict[str, V | None] = {}
        self._length = len(self._below)
        self._derived: dict[Callable[[Self], Any], Any] = {}

    def with_changes(self, changes: Mapping[str, V | None]) -> Self:
        """Return the mapping that has these values, and lacks what is None among them."""
        changed = type(self)()
        changed._below, changed._changes = self._below, {**self._changes, **changes}
        changed._length = self._length + sum((value is not None) - (name in self) for name, value in changes.items())
        if len(changed._changes) ** 2 > len(self._below):
            return type(self)(dict(changed.items()))
        return changed

    def derived(self, make: Callable[[Self], T]) -> T:
        """Return what `make` says of all of it, which it is asked once: a thousand clients need the same."""
        if make not in self._derived:
            self._derived[make] = make(self)
        found: T = self._derived[make]
        return found

    def __getitem__(self, name: str) -> V:
        value = self._changes[name] if name in self._changes else self._below[name]
        if value is None:
            raise KeyError(name)
        return value

    def get(self, name: str, default: Any = None) -> Any:
        """Return what is there under this name: without an error where there is nothing, which costs a microsecond."""
        if name in self._changes:
            value = self._changes[name]
            return default if value is None else value
        return self._below.get(name, default)

    def __contains__(self, name: object) -> bool:
        return self._changes[name] is not None if name in self._changes else name in self._below

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self._below if name not in self._changes)
        yield from (name for name, value in self._changes.items() if value is not None)

    def __len__(self) -> int:
        return self._length


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
    A part of another resource (`part_of`) is sent as that alone: the bodies of all its parts one after the other, which
    reads as all of them merged (Protocol Buffers, "Encoding", "Last One Wins").
    """

    key: ResourceKey
    version: str
    body: bytes = field(repr=False)
    requires: frozenset[ResourceKey] = frozenset()
    part_of: ResourceKey | None = None

    @classmethod
    def of(cls, type_url: str, name: str, body: bytes, requires: Iterable[ResourceKey] = ()) -> Self:
        """Pack a serialised message under its content hash (64 bits, hexadecimal)."""
        digest = hashlib.blake2b(body, digest_size=8).hexdigest()
        return cls(ResourceKey(type_url, name), digest, body, frozenset(requires))


def whole_of(key: ResourceKey, parts: Iterable[Resource]) -> Resource:
    """Put a resource together of its parts, in the order of their names."""
    ordered = sorted(parts, key=lambda part: part.key)
    requires = frozenset[ResourceKey]().union(*(part.requires for part in ordered))
    return Resource.of(*key, b"".join(part.body for part in ordered), requires)


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


class SnapshotView:
    """What one client may see of the newest `snapshot`: without `secrets` no Secret (X57)."""

    __slots__ = ("_secrets", "snapshot")

    def __init__(self, snapshot: Snapshot, secrets: bool) -> None:
        self.snapshot = snapshot
        self._secrets = secrets

    def of_type(self, type_url: str) -> Layered[Resource] | None:
        """Return all there is of a type, None if the client sees nothing of it."""
        if type_url == SECRET and not self._secrets:
            return None
        return self.snapshot.by_type.get(type_url)

    def find(self, key: ResourceKey) -> Resource | None:
        """Return the resource of this key, if there is one that the client may see."""
        resources = self.of_type(key.type_url)
        return resources.get(key.name) if resources is not None else None


EMPTY = Snapshot.of(())
