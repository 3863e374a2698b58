"""The questions that are asked of one source, by the namespace that asks, and which gives way to others. Pure."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Generic, TypeVar

from controller.signals.together import Together

Key = TypeVar("Key", bound=Hashable)


class KeysByShare(Generic[Key]):
    """Keys by share (a namespace). What is done here takes as long with many keys, and many shares, as with few.

    `rest` is that of `Together`.
    """

    def __init__(self, rest: float) -> None:
        self._rest = rest
        self._shares: dict[str, Together[Key]] = {}
        # A size changes by one, so the largest is known without a search.
        self._of_size: dict[int, dict[str, None]] = {}
        self._largest = 0

    def __getitem__(self, share: str) -> Together[Key]:
        """Return the keys of a share that has some."""
        return self._shares[share]

    def get(self, share: str) -> Together[Key] | None:
        """Return the keys of a share; None if it has none."""
        return self._shares.get(share)

    def add(self, key: Key, share: str) -> None:
        """Add a key that is new."""
        size = self._size(share)
        self._shares.setdefault(share, Together(self._rest)).keys[key] = None
        self._move(share, size, size + 1)

    def forget(self, key: Key, share: str) -> None:
        """Forget a key that there is."""
        size = self._size(share)
        self._shares[share].forget(key)
        self._move(share, size, size - 1)
        if size == 1:
            del self._shares[share]

    def gives_way(self, share: str) -> Key | None:
        """Say which key makes room for another one of a share: of one that has most; None if there is none.

        That has more than the other one even then, so no two take places from each other in turns. It is the newest:
        what is asked for the longest stays known.
        """
        if self._largest <= self._size(share) + 1:
            return None
        largest = next(iter(self._of_size[self._largest]))
        return next(reversed(self._shares[largest].keys))

    def _size(self, share: str) -> int:
        return len(self._shares[share].keys) if share in self._shares else 0

    def _move(self, share: str, before: int, size: int) -> None:
        if before:
            of_before = self._of_size[before]
            del of_before[share]
            if not of_before:
                del self._of_size[before]
        if size:
            self._of_size.setdefault(size, {})[share] = None
        if size > self._largest or (before == self._largest and before not in self._of_size):
            self._largest = size
