"""A line of keys in which shares, such as namespaces, take turns. Pure."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

# Of one share so many stand in one round. Those of others that come meanwhile stand in it too.
_OF_ONE = 10


def of_nobody(_: object) -> str:
    """Say that all keys are one share's."""
    return ""


class WaitingLine(Generic[Key]):
    """Keys that wait, each once, and each on behalf of a share.

    They go in the order in which they came, for as long as no share has more than ten of them; what it has beyond that
    waits for the next round, which begins once the others have had theirs. So a share with thousands of keys delays one
    of another share by ten, and few of everybody go by age alone.
    """

    def __init__(self, share_of: Callable[[Key], str] = of_nobody) -> None:
        self._share_of = share_of
        # There is none beyond the round while the round itself is empty.
        self._round: OrderedDict[Key, None] = OrderedDict()
        self._placed: Counter[str] = Counter()
        self._beyond: dict[str, OrderedDict[Key, None]] = {}

    def add(self, key: Key, *, first: bool = False) -> None:
        """Let a key wait, unless it does; `first` puts it before all others."""
        share = self._share_of(key)
        if first:
            self.discard(key)
            self._place(key, share)
            self._round.move_to_end(key, last=False)
        elif key in self:
            return
        elif self._placed[share] < _OF_ONE and share not in self._beyond:
            self._place(key, share)
        else:
            self._beyond.setdefault(share, OrderedDict())[key] = None

    def take(self) -> Key | None:
        """Take the next key; None if there is none."""
        if not self._round:
            return None
        key, _ = self._round.popitem(last=False)
        self._begin_round()
        return key

    def discard(self, key: Key) -> None:
        """Let a key wait no longer, if it does."""
        share = self._share_of(key)
        beyond = self._beyond.get(share, OrderedDict())
        if key in self._round:
            del self._round[key]
            self._placed[share] -= 1
        elif key in beyond:
            del beyond[key]
            if not beyond:
                del self._beyond[share]
        self._begin_round()

    def __contains__(self, key: Key) -> bool:
        return key in self._round or key in self._beyond.get(self._share_of(key), ())

    def __bool__(self) -> bool:
        return bool(self._round)

    def __len__(self) -> int:
        return len(self._round) + sum(map(len, self._beyond.values()))

    def _place(self, key: Key, share: str) -> None:
        self._round[key] = None
        self._placed[share] += 1

    def _begin_round(self) -> None:
        """Begin the next round once this one is empty."""
        if self._round:
            return
        self._placed.clear()
        for share, keys in list(self._beyond.items()):
            while keys and self._placed[share] < _OF_ONE:
                self._place(keys.popitem(last=False)[0], share)
            if not keys:
                del self._beyond[share]
