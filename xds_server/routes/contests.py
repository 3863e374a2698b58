"""What only one route may have: a port of the gateway, and each host. Pure.

The controller gives each to one object alone, so there is a contest only for a moment, or where somebody else wrote a
status. Who is served on a port keeps it then, as it does for the controller (docs/adr/0001): a status takes nothing
from another model. Otherwise the winner follows from the objects alone (docs/adr/0040, 0046), so that every replica
that starts sees the same one.

Who has left a port has it behind all others, while clients are led there. But of those who are not served there yet,
none of another namespace goes before: they would be called by its clients (docs/adr/0067).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

from controller.api.contract.route import RouteKey

LEFT = 2
"""The rank of who has left a port."""


class Contender(NamedTuple):
    """The order of those who say that they have one thing: the smaller has it.

    `rank` is the right that the claim itself gives, 0 being the best; `newcomer` are those who are not served there
    already; `foreign` are those of another namespace than that of the Service; `created` is when the object was made
    (RFC 3339).
    """

    rank: int
    newcomer: bool
    foreign: bool
    created: str
    key: RouteKey


class _Contest:
    """The contenders for one thing: those who are served there already, and the newcomers of each namespace, in order.

    So whoever has thousands say that they have it costs others no look at all of them.
    """

    def __init__(self) -> None:
        self._in_order: dict[str | None, list[Contender]] = {}
        self._led: Counter[str] = Counter()

    def add(self, one: Contender) -> None:
        insort(self._in_order.setdefault(_group(one), []), one)
        self._led.update([one.key.namespace] if one.rank == LEFT else [])

    def remove(self, one: Contender) -> None:
        group = self._in_order[_group(one)]
        del group[bisect_left(group, one)]
        if not group:
            del self._in_order[_group(one)]
        if one.rank == LEFT:
            self._led[one.key.namespace] -= 1
            self._led += Counter()  # drops who has none any more

    def winner(self) -> RouteKey | None:
        groups = (None, *self._led) if self._led else tuple(self._in_order)
        firsts = (self._in_order[one][0] for one in groups if one in self._in_order)
        first = min(firsts, default=None)
        return first.key if first else None


def _group(one: Contender) -> str | None:
    return one.key.namespace if one.newcomer else None


class Contests:
    """Which routes say that they have what, and who has it."""

    def __init__(self) -> None:
        self._contests: dict[int | str, _Contest] = {}
        self._claims: dict[RouteKey, Mapping[int | str, Contender]] = {}

    def claim(self, key: RouteKey, claims: Mapping[int | str, Contender]) -> frozenset[RouteKey]:
        """Claim these ports and hosts and no others; return the other routes that won or lost something by it."""
        before = self._claims.pop(key, {})
        if claims:
            self._claims[key] = claims
        if before == claims:
            return frozenset()
        things = before.keys() | claims.keys()
        winners = {thing: self.winner(thing) for thing in things}
        for thing, standing in before.items():
            self._contests[thing].remove(standing)
        for thing, standing in claims.items():
            self._contests.setdefault(thing, _Contest()).add(standing)
        changes = [(winners[thing], self.winner(thing)) for thing in things]
        for thing in before.keys() - claims.keys():
            if self.winner(thing) is None:
                del self._contests[thing]
        return frozenset(one for was, now in changes if was != now for one in (was, now) if one not in (None, key))

    def winner(self, thing: int | str) -> RouteKey | None:
        """Say who has a port or a host; None if nobody says so."""
        contest = self._contests.get(thing)
        return contest.winner() if contest else None
