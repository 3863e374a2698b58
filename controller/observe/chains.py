"""Chains: models whose remote backend is another model of this gateway, as a large one that falls back on a small one.

Clients of a Service that is taken over are led to the gateway, and so are requests that another model sends there. That
is well as long as it ends somewhere. Where it comes back to a model that it passed (a cycle), no request would ever
leave: the youngest model of the cycle does without its remote backend, and the others are a chain (docs/adr/0052).

A model has one remote backend, so each is followed by one other at most.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from controller.api.kubernetes.objects import Service
from controller.frontend.claims import Seniority
from controller.observe.own_place import addresses_and_balancers, names_of_service, usual_form
from controller.store.objects import ObjectRef

# How many models are looked through for a cycle. The gateways end a request after four, whatever is found (ADR 26).
_LONGEST = 16


class HostAndPort(NamedTuple):
    """Where requests are sent: a host in its usual form, and a port."""

    host: str
    port: int

    @classmethod
    def of(cls, host: str, port: int) -> HostAndPort:
        """Name the place of a host as somebody wrote it."""
        return cls(usual_form(host), port)


def places_of(namespace: str, name: str, service: Service, port: int, nearby: str | None) -> frozenset[HostAndPort]:
    """Name the places of one port of a Service; `nearby` is the namespace where its name alone will do."""
    hosts = {*names_of_service(namespace, name, nearby=namespace == nearby), *addresses_and_balancers(service)}
    return frozenset(HostAndPort(host, port) for host in hosts if host not in ("", "none"))


@dataclass(frozen=True, slots=True)
class Link:
    """What a model is to a chain.

    `remote` is where its remote backend is, None if it has none. What is sent to one of `places` is for this model;
    what is sent to one of `led` gets there by way of the gateway, and the rest goes to the pods.
    """

    age: Seniority
    remote: HostAndPort | None = None
    places: frozenset[HostAndPort] = frozenset()
    led: frozenset[HostAndPort] = frozenset()


class Chains:
    """Which models are behind which."""

    def __init__(self) -> None:
        self._links: dict[ObjectRef, Link] = {}
        self._at: dict[HostAndPort, set[ObjectRef]] = {}
        self._sending: dict[HostAndPort, set[ObjectRef]] = {}

    def record(self, model: ObjectRef, link: Link | None) -> frozenset[ObjectRef]:
        """Take in what a model is now, None if there is none; return other models for which that changes something."""
        before = self._links.get(model)
        if link == before:
            return frozenset()
        places = (before.places if before else frozenset()) | (link.places if link else frozenset())
        moved = {model}.union(*(self._sending.get(place, ()) for place in places))
        affected = self._with_cycles(moved)
        self._remove(model)
        if link:
            self._links[model] = link
            for place in link.places:
                self._at.setdefault(place, set()).add(model)
            if link.remote:
                self._sending.setdefault(link.remote, set()).add(model)
        return (affected | self._with_cycles(moved)) - {model}

    def _remove(self, model: ObjectRef) -> None:
        link = self._links.pop(model, None)
        if link is None:
            return
        indexed = [(self._at, place) for place in link.places]
        indexed += [(self._sending, link.remote)] if link.remote else []
        for index, place in indexed:
            index[place].discard(model)
            if not index[place]:
                del index[place]

    def _with_cycles(self, models: Collection[ObjectRef]) -> frozenset[ObjectRef]:
        return frozenset(models).union(*map(self._cycle, models))

    def is_chained(self, model: ObjectRef) -> bool:
        """Tell whether the remote backend of a model is another model, whether or not the gateway is on the way yet."""
        return bool(self._behind(model))

    def cut(self, model: ObjectRef) -> tuple[ObjectRef, ...]:
        """Return the cycle that ends by this model doing without its remote backend: this model, and those behind it.

        Empty if it need not.
        """
        cycle = self._cycle(model)
        return cycle if cycle and max(cycle, key=lambda one: self._links[one].age) == model else ()

    def _cycle(self, model: ObjectRef) -> tuple[ObjectRef, ...]:
        """Follow a model by way of the gateway until it comes again; empty if it does not."""
        found = [model]
        for one in self._followed(model):
            if one == model:
                return tuple(found)
            found.append(one)
        return ()

    def _followed(self, model: ObjectRef) -> Iterator[ObjectRef]:
        for _ in range(_LONGEST):
            link, behind = self._links.get(model), self._behind(model)
            led = [one for one in behind if link and link.remote in self._links[one].led]
            if not led:
                return
            model = min(led)
            yield model

    def _behind(self, model: ObjectRef) -> Collection[ObjectRef]:
        link = self._links.get(model)
        return self._at.get(link.remote, ()) if link and link.remote else ()


def told(cycle: tuple[ObjectRef, ...]) -> str:
    """Say how a cycle goes, from its first model on and back to that."""
    return ", ".join(f"{one} sends to {other}" for one, other in pairwise((*cycle, cycle[0])))
