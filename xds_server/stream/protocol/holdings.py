"""What one client has of one resource type, by name, and what all of that requires."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping

from xds_server.snapshot.snapshot import ResourceKey
from xds_server.stream.protocol.requests import Held


class Holdings(MutableMapping[str, Held]):
    """A mapping that tells at once whether anything in it requires a resource, however much there is."""

    __slots__ = ("_held", "_requiring", "_unknown")

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}
        self._requiring: dict[ResourceKey, int] = {}
        self._unknown = 0

    @property
    def has_unknown(self) -> bool:
        """Whether nothing is known of the content of some of it."""
        return self._unknown > 0

    def require(self, key: ResourceKey) -> bool:
        """Whether something the client has, or may have, requires `key`."""
        return key in self._requiring

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

    def __contains__(self, name: object) -> bool:
        return name in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def _count(self, held: Held, by: int) -> None:
        self._unknown += by if held.unknown else 0
        for resource in held.contents:
            for key in resource.requires:
                count = self._requiring.get(key, 0) + by
                if count:
                    self._requiring[key] = count
                else:
                    del self._requiring[key]
