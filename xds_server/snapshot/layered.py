"""An immutable mapping whose next version costs what changes, not what is there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Generic, Self, TypeVar

V = TypeVar("V")


class Layered(Mapping[str, V], Generic[V]):
    """A large mapping below, and above it what changed since: None for what is gone.

    The two become one as soon as the changes are more than the square root of what is there, so neither copying the
    changes nor copying everything now and then costs much for each of them.
    """

    __slots__ = ("_below", "_changes", "_length")

    def __init__(self, below: Mapping[str, V] | None = None) -> None:
        self._below: dict[str, V] = dict(below or {})
        self._changes: dict[str, V | None] = {}
        self._length = len(self._below)

    def with_changes(self, changes: Mapping[str, V | None]) -> Self:
        """Return the mapping that has these values, and lacks what is None among them."""
        changed = type(self)()
        changed._below, changed._changes = self._below, {**self._changes, **changes}
        changed._length = self._length + sum((value is not None) - (name in self) for name, value in changes.items())
        if len(changed._changes) ** 2 > len(self._below):
            return type(self)(dict(changed.items()))
        return changed

    def __getitem__(self, name: str) -> V:
        value = self._changes[name] if name in self._changes else self._below[name]
        if value is None:
            raise KeyError(name)
        return value

    def __contains__(self, name: object) -> bool:
        return self._changes[name] is not None if name in self._changes else name in self._below

    def __iter__(self) -> Iterator[str]:
        yield from (name for name in self._below if name not in self._changes)
        yield from (name for name, value in self._changes.items() if value is not None)

    def __len__(self) -> int:
        return self._length
