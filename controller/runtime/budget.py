"""Who may write a status now: one budget for the whole controller, so that no storm of changes becomes one of writes.

* A write that changes the route is what traffic waits for: it goes first, from a bucket of its own, and a few of the
  writes under way at a time are kept free for it.
* All other writes share one bucket, in turns: a model stands in line once, whatever happens to it meanwhile, and
  namespaces take turns, however many models of one wait.
* One model writes its route some times a second at most, all else once a second, and numbers that are merely newer
  every 15 seconds, after a few that go at once. So a model that flaps takes nothing from the others.

Nobody waits with a status in hand: a model whose turn comes is looked at again, and writes what is true by then. States
in between are never written. Pure; moments come in as arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from datetime import datetime, timedelta
from enum import IntEnum
from typing import Generic, TypeVar

from controller.api.timing import Limits, RateLimit
from controller.runtime.line import WaitingLine, of_nobody

Key = TypeVar("Key", bound=Hashable)


class Urgency(IntEnum):
    """What a write would change: nothing, only numbers, what is said in words, or where traffic goes."""

    NOTHING = 0
    NUMBERS = 1
    WORDS = 2
    ROUTE = 3


class TokenBucket:
    """Tokens that come back with time. A clock that is set back brings none, and takes none."""

    def __init__(self, rate: RateLimit) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._at: datetime | None = None

    def take(self, now: datetime) -> bool:
        """Take a token, if there is one."""
        self._refill(now)
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    def put_back(self) -> None:
        """Return a token that was not used."""
        self._tokens = min(self._tokens + 1, self._rate.burst)

    def next_at(self, now: datetime) -> datetime:
        """Say when there is a token: now, or later."""
        self._refill(now)
        # Rounded up to the microsecond of a moment, or the token would just not be there yet.
        missing = max(1 - self._tokens, 0.0)
        return now + timedelta(seconds=missing / self._rate.per_second, microseconds=1) if missing else now

    def _refill(self, now: datetime) -> None:
        passed = max((now - self._at).total_seconds(), 0.0) if self._at else 0.0
        self._tokens = min(self._tokens + passed * self._rate.per_second, self._rate.burst)
        self._at = now


class _Lane(Generic[Key]):
    """One bucket, and the models that wait for a token of it."""

    def __init__(self, rate: RateLimit, share_of: Callable[[Key], str]) -> None:
        self.bucket = TokenBucket(rate)
        self.waiting: WaitingLine[Key] = WaitingLine(share_of)


class WriteBudget(Generic[Key]):
    """Who writes, who has the next turn, and who stands in line for one."""

    def __init__(self, limits: Limits, share_of: Callable[[Key], str] = of_nobody) -> None:
        self._limits = limits
        self._routes: _Lane[Key] = _Lane(limits.routes, share_of)
        self._others: _Lane[Key] = _Lane(limits.others, share_of)
        # Whose turn it is, or who writes, each with its lane.
        self._turns: dict[Key, _Lane[Key]] = {}
        self._writing: dict[Key, _Lane[Key]] = {}
        self._own_routes: dict[Key, TokenBucket] = {}
        self._last_words: dict[Key, datetime] = {}
        self._own_numbers: dict[Key, TokenBucket] = {}

    def not_before(self, model: Key, urgency: Urgency, now: datetime) -> datetime:
        """Say when a model may write again for all it wrote itself: now, or later."""
        if urgency is Urgency.ROUTE:
            own = self._own_routes.get(model)
            return own.next_at(now) if own else now
        at = _after(self._last_words.get(model), timedelta(seconds=self._limits.words_of_one), now)
        if urgency is Urgency.NUMBERS:
            own = self._own_numbers.get(model)
            at = max(at, own.next_at(now) if own else now)
        return at

    def try_acquire(self, model: Key, urgency: Urgency, now: datetime) -> bool:
        """Say whether a model may write now; it then does, and calls `release` at the end. If not, it waits in line."""
        lane = self._routes if urgency is Urgency.ROUTE else self._others
        if self._turns.get(model) is lane:
            del self._turns[model]
        else:
            self._withdraw_from_all_but(lane, model)
            if lane.waiting or not self._has_room(lane) or not lane.bucket.take(now):
                lane.waiting.add(model)
                return False
        self._writing[model] = lane
        if urgency is Urgency.ROUTE:
            self._own_routes.setdefault(model, TokenBucket(self._limits.route_of_one)).take(now)
        else:
            self._last_words[model] = now
        if urgency is Urgency.NUMBERS:
            self._own_numbers.setdefault(model, TokenBucket(self._limits.numbers_of_one)).take(now)
        return True

    def grant_turns(self, now: datetime) -> list[Key]:
        """Give turns to those who wait: look at these models again, so that they acquire theirs, or withdraw."""
        granted: list[Key] = []
        for lane in (self._routes, self._others):
            while lane.waiting and self._has_room(lane) and lane.bucket.take(now):
                if (model := lane.waiting.take()) is not None:
                    self._turns[model] = lane
                    granted.append(model)
        return granted

    def withdraw(self, model: Key) -> None:
        """A model has nothing to write: it gives up its place in line, or its turn."""
        self._withdraw_from_all_but(None, model)

    def release(self, model: Key) -> None:
        """The write of a model came to its end, whichever."""
        self._writing.pop(model, None)

    def forget(self, model: Key) -> None:
        """Forget a model that is gone. A write of it that is under way still has to end."""
        self.withdraw(model)
        for of_one in (self._own_routes, self._last_words, self._own_numbers):
            of_one.pop(model, None)

    def next_turn_at(self, now: datetime) -> datetime | None:
        """Say when a turn comes by time alone; None while nobody waits, or all wait for a write to end."""
        return min(
            (
                lane.bucket.next_at(now)
                for lane in (self._routes, self._others)
                if lane.waiting and self._has_room(lane)
            ),
            default=None,
        )

    @property
    def waiting(self) -> int:
        """How many models stand in line."""
        return len(self._routes.waiting) + len(self._others.waiting)

    def _has_room(self, lane: _Lane[Key]) -> bool:
        under_way = [*self._writing.values(), *self._turns.values()]
        if lane is self._routes:
            return len(under_way) < self._limits.at_once
        return (
            len(under_way) < self._limits.at_once
            and under_way.count(self._others) < self._limits.at_once - self._limits.reserved_for_routes
        )

    def _withdraw_from_all_but(self, lane_to_stay_in: _Lane[Key] | None, model: Key) -> None:
        turn = self._turns.pop(model, None)
        if turn:
            turn.bucket.put_back()
        for lane in (self._routes, self._others):
            if lane is not lane_to_stay_in:
                lane.waiting.discard(model)


def _after(last: datetime | None, rest: timedelta, now: datetime) -> datetime:
    # A moment that lies ahead is one of a clock that was set back since.
    return max(min(last, now) + rest, now) if last else now
