"""Whose turn it is to be asked: few questions are under way at once, and those who want more take turns. Pure."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)


class Turns(Generic[Key]):
    """Keys that wait, each once and on behalf of a share (a namespace). `at_once` are taken, `of_one` share at most.

    The next turn goes to the share that has the fewest, and among such ones to the one that has waited the longest
    since it got one; within a share, to the key that came first. So a share with thousands of keys, or one in which
    nothing answers, delays those of another by one turn of each share.
    """

    def __init__(self, at_once: int, of_one: int) -> None:
        self._free = at_once
        self._of_one = of_one
        self._taken: Counter[str] = Counter()
        # Who has waited the longest since it got a turn is in front.
        self._waiting: dict[str, deque[Key]] = {}
        self._shares: dict[Key, str] = {}

    def add(self, key: Key, share: str) -> None:
        """Let a key wait for its turn, unless it does already or has one."""
        if key not in self._shares:
            self._shares[key] = share
            self._waiting.setdefault(share, deque()).append(key)

    def take(self) -> Key | None:
        """Take the next key; None while nothing waits that may be taken. It has its turn until `end`."""
        may = (share for share in self._waiting if self._taken[share] < self._of_one)
        share = min(may, key=self._taken.__getitem__, default=None) if self._free else None
        if share is None:
            return None
        queue = self._waiting.pop(share)
        key = queue.popleft()
        if queue:
            self._waiting[share] = queue  # behind all others
        self._free -= 1
        self._taken[share] += 1
        return key

    def end(self, key: Key) -> None:
        """The turn of a key is over."""
        share = self._shares.pop(key)
        self._free += 1
        self._taken[share] -= 1
        if not self._taken[share]:
            del self._taken[share]
