"""What is to be looked at next: a work queue of keys. Pure; every moment comes in as an argument.

A key says only *that* something is to be looked at, never what happened to it: whoever takes it computes what shall be
from everything that is known. So a key that is added ten times is worked once, and a key that is added while it is in
work is worked again afterwards, never by two at once.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from controller.runtime.line import WaitingLine, of_nobody

Key = TypeVar("Key", bound=Hashable)

# Of what is urgent, this much goes before one that is not: a storm delays the rest, and never stops it.
_URGENT_IN_A_ROW = 10


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a key rests that failed: `first`, then twice as long each time up to `longest`, within +-20 %."""

    first: timedelta
    longest: timedelta

    def after(self, failures: int, chance: float, longest: timedelta | None = None) -> timedelta:
        """Return the rest after so many failures (from 1); `chance` is from 0 to 1, so that not all return at once."""
        # More doublings than these are longer than anything.
        rest = self.first * (1 << min(failures - 1, 20))
        return min(rest, longest or self.longest, self.longest) * (0.8 + 0.4 * chance)


class Queue(Generic[Key]):
    """Keys that are due, each once, and keys that will be. Who takes one says how it went; until then it is in work.

    What is urgent goes first; otherwise the order is the one in which keys were added, but that shares take turns.
    """

    def __init__(
        self, backoff: Backoff, chance: Callable[[], float], share_of: Callable[[Key], str] = of_nobody
    ) -> None:
        self._backoff = backoff
        self._chance = chance
        self._urgent: WaitingLine[Key] = WaitingLine(share_of)
        self._plain: WaitingLine[Key] = WaitingLine(share_of)
        self._in_a_row = 0
        # In work; the value says whether it was added meanwhile, and how.
        self._in_work: dict[Key, bool | None] = {}
        self._later: dict[Key, datetime] = {}
        self._by_time: list[tuple[datetime, int, Key]] = []
        self._number = itertools.count()
        self._failures: dict[Key, int] = {}
        self._rests: dict[Key, datetime] = {}
        self._latest: datetime | None = None

    def add(self, key: Key, *, urgent: bool = True, first: bool = False) -> None:
        """Let a key be worked soon; what was urgent once stays urgent. `first` lets it be the next one."""
        if key in self._in_work:
            self._in_work[key] = bool(self._in_work[key]) or urgent
        elif urgent:
            self._plain.discard(key)
            self._urgent.add(key, first=first)
        elif key not in self._urgent:
            self._plain.add(key)

    def add_at(self, key: Key, at: datetime) -> None:
        """Let a key be worked at a moment, if nothing has it worked before; of several moments the earliest counts."""
        if key not in self._later or at < self._later[key]:
            self._later[key] = at
            heapq.heappush(self._by_time, (at, next(self._number), key))

    def waits(self, key: Key) -> bool:
        """Whether a key is due, and not in work."""
        return key in self._urgent or key in self._plain

    def hurries(self, now: datetime) -> bool:
        """Whether something urgent is due."""
        self._wake(now)
        return bool(self._urgent)

    def take(self, now: datetime) -> Key | None:
        """Take the next key that is due into work; None if there is none. Moments it waited for are forgotten."""
        self._wake(now)
        key = self._next()
        if key is not None:
            self._later.pop(key, None)
            self._in_work[key] = None
        return key

    def succeeded(self, key: Key) -> None:
        """The work is done, or there was none to do."""
        self.forgive(key)
        self.release(key)

    def release(self, key: Key) -> None:
        """The key is no longer in work; how it would have gone is not known."""
        again = self._in_work.pop(key, None)
        if again is not None:
            self.add(key, urgent=again)

    def failed(self, key: Key, now: datetime, longest: timedelta | None = None) -> datetime:
        """The work failed: try again after a rest (of at most `longest`). Returns when."""
        self._failures[key] = failures = self._failures.get(key, 0) + 1
        self._rests[key] = at = now + self._backoff.after(failures, self._chance(), longest)
        self.add_at(key, at)
        self.release(key)
        return at

    def forgive(self, key: Key) -> None:
        """Forget how often a key failed: what is to be done next is something else."""
        self._failures.pop(key, None)
        self._rests.pop(key, None)

    def rests_until(self, key: Key, now: datetime) -> datetime | None:
        """Say until when a key rests that failed. It may be looked at before; what failed is not tried before."""
        at = self._rests.get(key)
        return at if at and now < at else None

    def forget(self, key: Key) -> None:
        """Forget all about a key. One that is in work stays so until it is released."""
        for line in (self._urgent, self._plain):
            line.discard(key)
        for keys in (self._later, self._failures, self._rests):
            keys.pop(key, None)

    def wakes_at(self) -> datetime | None:
        """Say when the next key becomes due by time alone; None while nothing waits for a moment."""
        while self._by_time and self._later.get(self._by_time[0][2]) != self._by_time[0][0]:
            heapq.heappop(self._by_time)
        return self._by_time[0][0] if self._by_time else None

    @property
    def is_empty(self) -> bool:
        """Whether no key is due."""
        return not self._urgent and not self._plain

    def __len__(self) -> int:
        """How many keys are due."""
        return len(self._urgent) + len(self._plain)

    def _wake(self, now: datetime) -> None:
        if self._latest is not None and now < self._latest:
            # The clock was set back: moments of the old time mean nothing, and to look once too often harms nobody.
            for key in tuple(self._later):
                self._wake_one(key)
            self._rests.clear()
        self._latest = now
        while (at := self.wakes_at()) is not None and at <= now:
            self._wake_one(self._by_time[0][2])

    def _wake_one(self, key: Key) -> None:
        del self._later[key]
        self.add(key)

    def _next(self) -> Key | None:
        urgent = self._urgent and not (self._plain and self._in_a_row >= _URGENT_IN_A_ROW)
        key = (self._urgent if urgent else self._plain).take()
        if key is not None:
            self._in_a_row = self._in_a_row + 1 if urgent else 0
        return key
