"""Slots for what is done at a time, of which no share, such as a namespace, has all. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from controller.runtime.line import WaitingLine

Key = TypeVar("Key", bound=Hashable)


class Slots(Generic[Key]):
    """How many keys are in hand, `at_once` in all and `of_one` share at most; and which keys wait for their share."""

    def __init__(self, at_once: int, of_one: int, share_of: Callable[[Key], str]) -> None:
        self._at_once = at_once
        self._of_one = of_one
        self._share_of = share_of
        self._in_hand: Counter[str] = Counter()
        self._waiting: dict[str, WaitingLine[Key]] = {}

    @property
    def is_full(self) -> bool:
        """Whether there is no slot left for anybody."""
        return self._in_hand.total() >= self._at_once

    def has_room(self, key: Key) -> bool:
        """Whether there is a slot left for the share of a key."""
        return not self.is_full and self._in_hand[self._share_of(key)] < self._of_one

    def begin(self, key: Key) -> None:
        """Give a slot to a key."""
        self._in_hand[self._share_of(key)] += 1

    def end(self, key: Key) -> None:
        """Take the slot back from a key."""
        share = self._share_of(key)
        self._in_hand[share] -= 1
        if not self._in_hand[share]:
            del self._in_hand[share]

    def wait(self, key: Key) -> None:
        """Let a key wait until there is room for its share."""
        self._waiting.setdefault(self._share_of(key), WaitingLine()).add(key)

    def next_beside(self, key: Key) -> Key | None:
        """Take the next key of the same share that waits; None if there is none, or no room for it."""
        share = self._share_of(key)
        if share not in self._waiting or not self.has_room(key):
            return None
        found = self._waiting[share].take()
        if not self._waiting[share]:
            del self._waiting[share]
        return found
