"""Delayed removal: clusters outlive their route by five seconds, for retries in flight.

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
from xds_server.snapshot.snapshot import LISTENER, ROUTE, SECRET, Resource, ResourceKey, Snapshot

Publish = Callable[[Snapshot, frozenset[ResourceKey]], None]


@dataclass(frozen=True, slots=True)
class Departed:
    """The owner of what a route let go of at one moment."""

    route: RouteKey
    number: int


class RetainingAssembly:
    """A snapshot assembled of the resources of many routes, in which what a route lets go of stays for some `seconds`.

    `publish` is called when that goes; what `replace` changes is published by its caller.
    """

    def __init__(self, publish: Publish, seconds: float) -> None:
        self._publish = publish
        self._seconds = seconds
        self._assembly: Assembly[RouteKey | Departed] = Assembly()
        self._numbers = itertools.count(1)
        self._timers: dict[Departed, asyncio.TimerHandle] = {}

    @property
    def snapshot(self) -> Snapshot:
        """Everything there is now."""
        return self._assembly.snapshot

    def replace(self, changes: Iterable[tuple[RouteKey, tuple[Resource, ...]]]) -> frozenset[ResourceKey]:
        """Give routes new resources (none removes the route); return the keys of all that differs from before."""
        new = tuple(changes)
        retained: list[tuple[Departed, tuple[Resource, ...]]] = []
        for key, resources in new:
            left = self._left_by(key, {one.key for one in resources})
            if left:
                owner = Departed(key, next(self._numbers))
                retained.append((owner, left))
                self._timers[owner] = asyncio.get_running_loop().call_later(self._seconds, self._remove, owner)
        return self._assembly.replace([*retained, *new])

    def versions(self, key: RouteKey) -> Iterable[tuple[ResourceKey, str]]:
        """List the resources that a route has, each with its version."""
        return self._assembly.versions(key)

    def routes_with(self, keys: Iterable[ResourceKey]) -> frozenset[RouteKey]:
        """Find the routes that have any of these resources."""
        return frozenset(one for one in self._assembly.owners_of(keys) if isinstance(one, RouteKey))

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _left_by(self, key: RouteKey, new: set[ResourceKey]) -> tuple[Resource, ...]:
        """Find what nobody new can get to: not where clients come in. No secret is retained, nor what needs one."""
        entrance = {
            ResourceKey(LISTENER, names.front_listener(key)),
            ResourceKey(ROUTE, names.route_configuration(key)),
        }
        had = [one for one, _ in self._assembly.versions(key) if one not in new]
        found = (self._assembly.snapshot.find(one) for one in had if one.type_url != SECRET and one not in entrance)
        left = {one.key: one for one in found if one}
        gone = set(had) - left.keys()
        while lacking := [one for one, resource in left.items() if not gone.isdisjoint(resource.requires)]:
            gone.update(lacking)
            for one in lacking:
                del left[one]
        return tuple(left.values())

    def _remove(self, owner: Departed) -> None:
        del self._timers[owner]
        if changed := self._assembly.replace([(owner, ())]):
            self._publish(self.snapshot, changed)
