"""Chains: models whose remote backend is another model of this gateway, as a large one that falls back on a small one.

Clients of a Service that is taken over are led to the gateway, and so are requests that another model sends there. That
is well as long as it ends somewhere. Where it comes back to a model that it passed (a cycle), no request would ever
leave: the youngest model of the cycle does without its remote backend, and the others are a chain (docs/adr/0052).

A model has one remote backend, so each is followed by one other at most.
"""

from __future__ import annotations

import bisect
import itertools
import operator
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from controller.api.kubernetes.objects import Service
from controller.frontend.claims import Seniority
from controller.observe.own_place import addresses_and_balancers, names_of_service, usual_form
from controller.runtime.line import WaitingLine
from controller.store.objects import ObjectRef

# How many models are looked through for a cycle. The gateways end a request after four, whatever is found (ADR 26).
_LONGEST = 16
# So many of those who send to a place hear soon that a model is there now, or is no more.
_SOON = 10
# By so many of its addresses a Service is known: whoever may write it may give it thousands.
_ADDRESSES = 32


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
    addresses = itertools.islice(addresses_and_balancers(service), _ADDRESSES)
    hosts = {*names_of_service(namespace, name, nearby=namespace == nearby), *addresses}
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


_NOTHING = Link(Seniority("", "", ""))


class _News(NamedTuple):
    """What is to be told of a place, on whose behalf: since a model of this namespace, one or none is there."""

    namespace: str
    place: HostAndPort


class Chains:
    """Which models are behind which.

    However many send to one model, or are at one place, to record a model costs no more than a search among them. Those
    for whom no more changed than whether a model is there are told apart, but for a few.
    """

    def __init__(self) -> None:
        self._links: dict[ObjectRef, Link] = {}
        # At each place who is there, who is led there by way of the gateway, and who sends there; each in order.
        self._at: dict[HostAndPort, list[ObjectRef]] = {}
        self._led: dict[HostAndPort, list[ObjectRef]] = {}
        self._sending: dict[HostAndPort, list[ObjectRef]] = {}
        # Of what not all heard who send there, and who of them was told last; namespaces take turns.
        self._told: dict[_News, ObjectRef] = {}
        self._untold: WaitingLine[_News] = WaitingLine(operator.attrgetter("namespace"))

    def record(self, model: ObjectRef, link: Link | None) -> frozenset[ObjectRef]:
        """Take in what a model is now, None if there is none; return other models to look at again soon.

        Those are the ones of cycles that begin or end, and the first of those for whom their remote backend becomes
        another model, or none. The others of these come one by one from `next_to_tell`.
        """
        before = self._links.get(model)
        if link == before:
            return frozenset()
        places, led = self._changed(before, link)
        had = {place for place in places if place in self._at}
        affected = self._with_cycles(model, led)
        self._remove(model)
        if link:
            self._links[model] = link
            for index, place in self._indexed(link):
                bisect.insort(index.setdefault(place, []), model)
        affected |= self._with_cycles(model, led)
        for place in places:
            if (place in had) != (place in self._at):
                affected |= self._begin_telling(_News(model.namespace, place))
        return affected - {model}

    def _changed(
        self, before: Link | None, after: Link | None
    ) -> tuple[frozenset[HostAndPort], frozenset[HostAndPort]]:
        """Return the places, and those that are led, at which a model is and was not, or was and is not."""
        was, now = before or _NOTHING, after or _NOTHING
        return was.places ^ now.places, was.led ^ now.led

    def _indexed(self, link: Link) -> Iterator[tuple[dict[HostAndPort, list[ObjectRef]], HostAndPort]]:
        yield from ((self._at, place) for place in link.places)
        yield from ((self._led, place) for place in link.led)
        if link.remote:
            yield self._sending, link.remote

    def _remove(self, model: ObjectRef) -> None:
        link = self._links.pop(model, None)
        for index, place in self._indexed(link or _NOTHING):
            found = index[place]
            del found[bisect.bisect_left(found, model)]
            if not found:
                del index[place]

    def _with_cycles(self, model: ObjectRef, led: Collection[HostAndPort]) -> frozenset[ObjectRef]:
        """Return who is on a cycle with a model, or with who is led to one of some places at this moment.

        Each model is followed by one, so no more than one cycle goes through it, whoever sends to it.
        """
        through = {model, *(self._led[place][0] for place in led if place in self._led)}
        return frozenset().union(*map(self._cycle, through))

    def _begin_telling(self, news: _News) -> frozenset[ObjectRef]:
        """Return the first of those who send to a place where a model is now, or is no more; the others are told."""
        first = self._sending.get(news.place, [])[:_SOON]
        if len(first) == _SOON:
            self._told[news] = first[-1]
            self._untold.add(news)
        return frozenset(first)

    @property
    def tells(self) -> bool:
        """Whether there are models to be told yet."""
        return bool(self._untold)

    def next_to_tell(self) -> ObjectRef | None:
        """Return the next model to be looked at again; None if all were."""
        while (news := self._untold.take()) is not None:
            sending = self._sending.get(news.place, [])
            at = bisect.bisect_right(sending, self._told.pop(news))
            if at < len(sending):
                self._told[news] = sending[at]
                self._untold.add(news)
                return sending[at]
        return None

    def is_chained(self, model: ObjectRef) -> bool:
        """Tell whether the remote backend of a model is another model, whether or not the gateway is on the way yet."""
        link = self._links.get(model)
        return link is not None and link.remote in self._at

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
            link = self._links.get(model)
            led = self._led.get(link.remote, ()) if link and link.remote else ()
            if not led:
                return
            model = led[0]
            yield model


def told(cycle: tuple[ObjectRef, ...]) -> str:
    """Say how a cycle goes, from its first model on and back to that."""
    return ", ".join(f"{one} sends to {other}" for one, other in itertools.pairwise((*cycle, cycle[0])))
