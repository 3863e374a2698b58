"""Delayed removal: what a route lets go of stays for a moment, for requests and for clients on their way to it.

* Clusters outlive their route, for retries in flight. xDS has an Envoy let go of a cluster once no route names it
  ("Eventual consistency considerations"). But a request keeps the route that it began with, and with it the names of
  the clusters that its retry goes to.
* A port that a route left is served on as before, until another route takes it over or nobody did. Who gets a port that
  becomes free has it decided and written after the one before has left it; no client is refused meanwhile
  (docs/adr/0024).
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from controller.api.contract.route import RouteKey
from controller.api.timing import GatewayTiming
from xds_server.resources import names
from xds_server.snapshot.assembly import Assembly
from xds_server.snapshot.snapshot import SECRET, Resource, ResourceKey, Snapshot

Publish = Callable[[Snapshot, frozenset[ResourceKey]], None]
_Left = dict[ResourceKey, Resource]


@dataclass(frozen=True, slots=True)
class Departed:
    """The owner of what a route let go of at one moment."""

    route: RouteKey
    number: int


class RetainingAssembly:
    """A snapshot assembled of the resources of many routes, in which what a route lets go of stays for a while.

    `publish` is called when that goes; what `replace` changes is published by its caller.
    """

    def __init__(self, publish: Publish, timing: GatewayTiming) -> None:
        self._publish = publish
        self._timing = timing
        # What there is of a route that lives goes before what another one left.
        self._assembly: Assembly[RouteKey | Departed] = Assembly(yields=lambda owner: isinstance(owner, Departed))
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
            left = _without(self._assembly.brought_by(key), {one.key for one in resources})
            entrances = {one: resource for one, resource in left.items() if self._is_vacated_by(key, one)}
            if resources:
                # A route that goes on without TLS takes the secrets of its part with it, which is nothing without them.
                entrances = {one: resource for one, resource in entrances.items() if not resource.part_of}
            # Whoever comes in at the last moment has the time, too, that a request on its way has.
            way_out = self._timing.departed + (self._timing.vacated if entrances else 0)
            for those, seconds in (
                (entrances, self._timing.vacated),
                (_inside(left, entrances, goes_on=bool(resources)), way_out),
            ):
                if those:
                    owner = Departed(key, next(self._numbers))
                    retained.append((owner, tuple(those.values())))
                    self._timers[owner] = asyncio.get_running_loop().call_later(seconds, self._remove, owner)
        return self._assembly.replace([*retained, *new])

    def versions(self, key: RouteKey) -> Iterable[tuple[ResourceKey, str]]:
        """List the resources that a route has, each with its version."""
        return tuple(self._assembly.versions_of(key).items())

    def routes_with(self, keys: Iterable[ResourceKey]) -> frozenset[RouteKey]:
        """Find the routes that have any of these resources."""
        return frozenset(one for one in self._assembly.owners_of(keys) if isinstance(one, RouteKey))

    def close(self) -> None:
        """Stop all timers."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _is_vacated_by(self, route: RouteKey, key: ResourceKey) -> bool:
        """Tell whether clients come in there, and nobody else has taken it over already."""
        return names.is_entrance(key.name) and self.routes_with([key]) == {route}

    def _remove(self, owner: Departed) -> None:
        del self._timers[owner]
        if changed := self._assembly.replace([(owner, ())]):
            self._publish(self.snapshot, changed)


def _without(resources: Mapping[ResourceKey, Resource], new: set[ResourceKey]) -> _Left:
    return {key: resource for key, resource in resources.items() if key not in new}


def _inside(left: _Left, entrances: _Left, *, goes_on: bool) -> _Left:
    """Find what those need who came in already, or come in yet while the `entrances` are served on.

    An entrance that is served on keeps the secrets that it is served with, and one whose route is gone all others, too.
    But a credential that is taken away while its route goes on is gone at once, and so is what needs it.
    """
    inside = {key: one for key, one in left.items() if not names.is_entrance(key.name)}
    if entrances and not goes_on:
        return inside
    kept = frozenset[ResourceKey]().union(*(one.requires for one in entrances.values()))
    gone = {key for key in inside if key.type_url == SECRET} - kept
    while lacking := [key for key, one in inside.items() if key in gone or not gone.isdisjoint(one.requires)]:
        gone.update(lacking)
        for key in lacking:
            del inside[key]
    return inside
