"""What only one route may have: a port of the gateway, and each host. Pure.

The controller gives each to one object alone, so there is a contest only for a moment, or where somebody else wrote a
status. Who is served on a port keeps it then, as it does for the controller (docs/adr/0001): a status takes nothing
from another model. Otherwise the winner follows from the objects alone (docs/adr/0040, 0046), so that every replica
that starts sees the same one.

Who has left a port has it behind all others, while clients are led there. But of those who are not served there yet,
none of another namespace goes before: they would be called by its clients (docs/adr/0067).
"""

from __future__ import annotations

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


class Contests:
    """Which routes say that they have what, and who has it."""

    def __init__(self) -> None:
        self._contenders: dict[int | str, dict[RouteKey, Contender]] = {}
        self._claims: dict[RouteKey, Mapping[int | str, Contender]] = {}

    def claim(self, key: RouteKey, claims: Mapping[int | str, Contender]) -> frozenset[RouteKey]:
        """Claim these ports and hosts and no others; return the other routes that won or lost something by it."""
        before = self._claims.pop(key, {})
        if before == claims:
            if claims:
                self._claims[key] = claims
            return frozenset()
        things = before.keys() | claims.keys()
        winners = {thing: self.winner(thing) for thing in things}
        for thing in before.keys() - claims.keys():
            del self._contenders[thing][key]
            if not self._contenders[thing]:
                del self._contenders[thing]
        for thing, standing in claims.items():
            self._contenders.setdefault(thing, {})[key] = standing
        if claims:
            self._claims[key] = claims
        changes = ((winners[thing], self.winner(thing)) for thing in things)
        return frozenset(one for was, now in changes if was != now for one in (was, now) if one not in (None, key))

    def winner(self, thing: int | str) -> RouteKey | None:
        """Say who has a port or a host; None if nobody says so."""
        contenders = self._contenders.get(thing)
        if not contenders:
            return None
        led = {one.key.namespace for one in contenders.values() if one.rank == LEFT}

        def order(one: Contender) -> tuple[bool, Contender]:
            return bool(led) and one.newcomer and one.key.namespace not in led, one

        return min(contenders.values(), key=order).key
