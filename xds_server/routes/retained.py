"""What models left behind: kept until no request can be on its way to it any more.

xDS has an Envoy let go of a cluster once no route names it ("Eventual consistency considerations"). But a request keeps
the route that it began with, and with it the names of the clusters that its retry goes to.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from controller.api.contract.route import RouteKey
from xds_server.resources import names
from xds_server.snapshot.assembly import Assembly
from xds_server.snapshot.snapshot import LISTENER, ROUTE, SECRET, Resource, ResourceKey


@dataclass(frozen=True, slots=True)
class Departed:
    """The owner of what a model left behind at once."""

    model: RouteKey
    number: int


Owner = RouteKey | Departed
Changes = list[tuple[Owner, tuple[Resource, ...]]]


class DepartedResources:
    """Keeps resources of an assembly for some `seconds` after their model has let go of them.

    `publish` is told of what has changed when they go.
    """

    def __init__(
        self, assembly: Assembly[Owner], publish: Callable[[frozenset[ResourceKey]], None], seconds: float
    ) -> None:
        self._seconds = seconds
        self._assembly = assembly
        self._publish = publish
        self._numbers = itertools.count(1)
        self._timers: dict[Departed, asyncio.TimerHandle] = {}

    def kept_after(self, changes: Iterable[tuple[RouteKey, tuple[Resource, ...]]]) -> Changes:
        """List what these changes would remove, with an owner of its own; from now on its time runs."""
        kept: Changes = []
        for model, resources in changes:
            left = self._left_by(model, {one.key for one in resources})
            if left:
                owner = Departed(model, next(self._numbers))
                kept.append((owner, left))
                self._timers[owner] = asyncio.get_running_loop().call_later(self._seconds, self._let_go, owner)
        return kept

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _left_by(self, model: RouteKey, stays: set[ResourceKey]) -> tuple[Resource, ...]:
        """Find what nobody new can get to: not where clients come in. No secret is kept, nor what needs one."""
        entrance = {
            ResourceKey(LISTENER, names.front_listener(model)),
            ResourceKey(ROUTE, names.route_configuration(model)),
        }
        had = [key for key, _ in self._assembly.versions(model) if key not in stays]
        found = (self._assembly.snapshot.find(key) for key in had if key.type_url != SECRET and key not in entrance)
        left = {one.key: one for one in found if one}
        gone = set(had) - left.keys()
        while lacking := [key for key, one in left.items() if not gone.isdisjoint(one.requires)]:
            gone.update(lacking)
            for key in lacking:
                del left[key]
        return tuple(left.values())

    def _let_go(self, owner: Departed) -> None:
        del self._timers[owner]
        if changed := self._assembly.replace([(owner, ())]):
            self._publish(changed)
