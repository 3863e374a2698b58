"""Requests of minutes that all went to one side: where few come, ten seconds never have enough of them to tell.

Sums over all Envoys are kept, in pieces of ten seconds, and no more of them than say something: a busy object has one
or two, and one without requests has none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from controller.api.contract.reports import Count
from controller.decision import SentRequests

_LONGEST = 300.0
"""How far a run reaches back, in seconds: requests that are further apart say nothing of how a side is now."""

_PIECE = 10.0

# As many at one side are no chance even where the other one shall have a single percent.
_ENOUGH = 1_500


@dataclass(slots=True)
class _Piece:
    """How many requests were sent in some seconds: from the beginning of the first report of them to the last one.

    Moments are seconds since 1970: there are thousands of pieces for each report.
    """

    began: float
    until: float
    number: int


class Runs:
    """The requests to each side of every object, by the names that reports have. All moments are UTC."""

    def __init__(self) -> None:
        self._pieces: dict[str, deque[_Piece]] = {}
        self._since: float | None = None

    def add(self, added: Mapping[str, Count], at: datetime, seconds: float) -> None:
        """Record what a report adds in so many seconds before `at`; those that failed were sent elsewhere."""
        until = at.timestamp()
        began, oldest = until - seconds, until - _PIECE
        if self._since is None or until < self._since:  # the clock was set back
            self._since = until
        for name, count in added.items():
            if (number := count.issued - count.failed) <= 0:
                continue
            pieces = self._pieces.get(name)
            if not pieces or pieces[-1].began <= oldest:
                pieces = self._pieces.setdefault(name, deque())
                pieces.append(_Piece(began, until, number))
                _let_go(pieces, until - _LONGEST)
                continue
            last = pieces[-1]
            last.number += number
            last.began = min(last.began, began)
            last.until = max(last.until, until)

    def run(self, local: str, remotes: Iterable[str], since: datetime, now: datetime) -> SentRequests | None:
        """Count what one side got since the other one got something, from `since` on, and for five minutes at most.

        There may be none, of both. It is None while that is not known: nothing came yet, and it is less than five
        minutes since anything was heard.
        """
        moment = now.timestamp()
        begun = max(since.timestamp(), moment - _LONGEST)
        here = self._lately(local, begun, moment)
        there = [one for name in remotes for one in self._lately(name, begun, moment)]
        if not here and not there:
            is_known = self._since is not None and moment - self._since >= _LONGEST
            return SentRequests(0, 0, 0.0) if is_known else None
        last_here, last_there = (max((one.until for one in side), default=begun) for side in (here, there))
        is_here = last_here > last_there
        of_run = [one for one in (here if is_here else there) if one.began >= min(last_here, last_there)]
        number = sum(one.number for one in of_run)
        until = max((one.until for one in of_run), default=moment)
        seconds = max((until - one.began for one in of_run), default=0.0)
        return SentRequests(number, 0, seconds) if is_here else SentRequests(0, number, seconds)

    def forget(self, names: Iterable[str]) -> None:
        """Forget the sides of an object that is gone."""
        for name in names:
            self._pieces.pop(name, None)

    def _lately(self, name: str, begun: float, now: float) -> list[_Piece]:
        pieces = self._pieces.get(name)
        if pieces is None:
            return []
        # Before the clock was set back: when that was is not known any more.
        while pieces and pieces[-1].until > now:
            pieces.pop()
        return [one for one in pieces if one.until > begun]


def _let_go(pieces: deque[_Piece], before: float) -> None:
    """Let go of what was before a moment, and of what is behind enough."""
    while pieces[0].until <= before or sum(one.number for one in pieces) - pieces[0].number >= _ENOUGH:
        pieces.popleft()
