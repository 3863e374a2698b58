"""What a client has, or may have, of one resource type, and what all of that requires."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass, field

from xds_server.snapshot.snapshot import Resource, ResourceKey

# Name, nonce, type URL and framing of one resource in a response, roughly.
OVERHEAD_BYTES = 192


@dataclass(frozen=True, slots=True)
class Held:
    """What a client has of one resource.

    `version` is what it acknowledged or claimed, empty when a NACK left that open (X42). `resource` is the last content
    known to be there, None when the client came with a version that is not the current one. `maybe` is content of
    refused responses that may have been applied nevertheless, since another resource was the bad one.
    """

    version: str
    resource: Resource | None
    maybe: tuple[Resource, ...] = ()

    @property
    def certain(self) -> bool:
        """Whether the client has the resource for sure, in whatever version."""
        return bool(self.version) or self.resource is not None

    @property
    def contents(self) -> tuple[Resource, ...]:
        """All content that may be there."""
        return self.maybe if self.resource is None else (self.resource, *self.maybe)

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of its content."""
        return self.resource is None and not self.maybe


@dataclass(frozen=True, slots=True)
class Catalog:
    """All resources of one type in a snapshot, and what a client has that ACKed all of them.

    It is the same for all clients that join, so it is worked out once for each snapshot (`catalog_of`).
    """

    names: frozenset[str]
    keys: frozenset[ResourceKey]
    resources: Mapping[str, Resource]
    versions: Mapping[str, str]
    held: Mapping[str, Held]
    counts: Mapping[ResourceKey, int]
    required: Mapping[str, frozenset[str]]
    size: int


def catalog_of(resources: Mapping[str, Resource]) -> Catalog:
    """Work out the catalog of resources by name."""
    ordered = dict(sorted(resources.items()))
    counts = Counter(key for one in ordered.values() for key in one.requires)
    required: dict[str, set[str]] = {}
    for key in counts:
        required.setdefault(key.type_url, set()).add(key.name)
    return Catalog(
        names=frozenset(ordered),
        keys=frozenset(one.key for one in ordered.values()),
        resources=ordered,
        versions={name: one.version for name, one in ordered.items()},
        held={name: Held(one.version, one) for name, one in ordered.items()},
        counts=counts,
        required={type_url: frozenset(names) for type_url, names in required.items()},
        size=sum(len(one.body) + len(name) + OVERHEAD_BYTES for name, one in ordered.items()),
    )


@dataclass(frozen=True, slots=True)
class Flight:
    """A response that the client has neither ACKed nor NACKed: what it brings and what it takes away.

    `catalog` is there if it brings everything.
    """

    nonce: str
    sent: Mapping[str, Resource] = field(default_factory=dict)
    removed: Mapping[str, Held | None] = field(default_factory=dict)
    catalog: Catalog | None = None


class Holdings(MutableMapping[str, Held]):
    """What a client has of one type, by name; it says at once whether any of that requires a resource."""

    __slots__ = ("_held", "_open", "_requiring", "_unknown")

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._requiring: dict[ResourceKey, int] = {}
        self._unknown = 0
        self._open = 0

    @property
    def by_name(self) -> Mapping[str, Held]:
        """The same to read from, at the speed of a dict."""
        return self._held

    @property
    def has_unknown(self) -> bool:
        """Whether nothing is known of the content of some of it."""
        return self._unknown > 0

    @property
    def all_acknowledged(self) -> bool:
        """Whether of all of it there is a version that the client ACKed or claimed."""
        return not self._open

    @property
    def required(self) -> Collection[ResourceKey]:
        """What something the client has, or may have, requires."""
        return self._requiring.keys()

    def copy(self) -> Holdings:
        """Return the same, to be changed apart from this."""
        same = Holdings()
        same._held, same._requiring = self._held.copy(), self._requiring.copy()
        same._unknown, same._open = self._unknown, self._open
        return same

    def fill(self, catalog: Catalog, without: Iterable[str] = ()) -> None:
        """Have all of a catalog but some names; there was nothing before."""
        self._held.update(catalog.held)
        self._requiring = dict(catalog.counts)
        for name in without:
            del self[name]

    def __getitem__(self, name: str) -> Held:
        return self._held[name]

    def __setitem__(self, name: str, held: Held) -> None:
        before = self._held.get(name)
        self._held[name] = held
        self._count(held, 1)
        if before is not None:
            self._count(before, -1)

    def __delitem__(self, name: str) -> None:
        self._count(self._held.pop(name), -1)

    def claim_unknown(self, versions: Mapping[str, str]) -> None:
        """Have these versions of what is unknown here; there was nothing of these names."""
        self._held.update((name, Held(version, None)) for name, version in versions.items())
        self._unknown += len(versions)
        self._open += sum(not version for version in versions.values())

    def discard(self, name: str) -> None:
        """Have nothing of this name, whether or not there was."""
        held = self._held.pop(name, None)
        if held is not None:
            self._count(held, -1)

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def _count(self, held: Held, by: int) -> None:
        if not held.version:
            self._open += by
        if held.unknown:
            self._unknown += by
            return
        for resource in held.contents:
            for key in resource.requires:
                count = self._requiring.get(key, 0) + by
                if count:
                    self._requiring[key] = count
                else:
                    del self._requiring[key]
