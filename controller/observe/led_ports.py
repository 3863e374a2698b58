"""Which ports of the gateway the clients of a Service may still be led to, by what is there in the cluster.

That is what our EndpointSlices of it say, for as long as they say it, and a moment more: kube-proxy follows. They count
from when a model is served at the port that they lead to, and owns the Service or has taken it over, until they lead
there no more, whatever becomes of the model. Slices that somebody else writes like ours keep no port by that
(docs/adr/0060).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta

from controller.api.kubernetes.fronting import CONTROLLER_CLASS, SLICES_OF
from controller.api.kubernetes.objects import MANAGED_BY
from controller.frontend.kept_ports import NO_PORTS
from controller.frontend.service_facts import owner_of
from controller.observe.fronting import TakeoverRules, service_of
from controller.observe.index import ObjectIndex
from controller.store.objects import ObjectRef, StoredObject


class LedPorts:
    """Remembers of each Service to which ports our slices lead, and led a moment ago."""

    def __init__(self, index: ObjectIndex, rules: TakeoverRules) -> None:
        self._index = index
        self._class = rules.controller_class
        self._lasting = timedelta(seconds=rules.timing.kube_proxy_within)
        self._led: dict[ObjectRef, frozenset[int]] = {}
        # Ports that slices led to, until when kube-proxy may do so; and when to look again, the next one first.
        self._left: dict[ObjectRef, dict[int, datetime]] = {}
        self._over: deque[tuple[datetime, ObjectRef]] = deque()
        self._begins = True

    def begun(self) -> None:
        """Say that all Services that were there at the beginning have been seen.

        Of what was before, nobody knows at which port a model was served. So what is there then counts if the Service
        was made for a model: the controller sets it right if it is not the model's, and Kubernetes removes it if there
        is none.
        """
        self._begins = False

    def see(self, service: ObjectRef, now: datetime) -> frozenset[int]:
        """Return the ports of the gateway that clients of a Service may be led to at `now` (UTC)."""
        before, found = self._led.get(service, NO_PORTS), self._ports(service)
        if found:
            found &= before | self._written_for_models(service, found)
        self._led.pop(service, None)
        if found:
            self._led[service] = found
        until = {port: at for port, at in self._left.pop(service, {}).items() if self._lasts(at, now)}
        if gone := before - found:
            until |= dict.fromkeys(gone, now + self._lasting)
            self._over.append((now + self._lasting, service))
        if left := {port: at for port, at in until.items() if port not in found}:
            self._left[service] = left
        return found | left.keys()

    def over(self, now: datetime) -> Iterator[ObjectRef]:
        """Name the Services that are to be seen again at `now`: what they led to is over."""
        while self._over and not self._lasts(self._over[0][0], now):
            yield self._over.popleft()[1]

    def wakes_at(self, now: datetime) -> datetime | None:
        """Say when the next one is over, None if none is to be."""
        return min(self._over[0][0], now + self._lasting) if self._over else None

    def _lasts(self, until: datetime, now: datetime) -> bool:
        # A moment that is too far ahead is one of a clock that was set back.
        return now < until <= now + self._lasting

    def _ports(self, service: ObjectRef) -> frozenset[int]:
        found = (
            given.get("port")
            for one in self._index.stored_slices(service)
            if self._is_ours(one)
            for given in one.raw.get("ports") or ()
        )
        return frozenset(port for port in found if isinstance(port, int))

    def _is_ours(self, one: StoredObject) -> bool:
        labels = one.metadata.get("labels") or {}
        return labels.get(MANAGED_BY) == SLICES_OF and (labels.get(CONTROLLER_CLASS) or "") == self._class

    def _written_for_models(self, service: ObjectRef, ports: frozenset[int]) -> frozenset[int]:
        """Return those of some ports that the controller leads clients of a Service to.

        A Service that is taken over has slices that lead to its pods, too: their ports are none of the gateway's.
        """
        if self._begins and self._index.is_at_gateway(service):
            return ports
        concerned = (self._index.intent(one) for one in self._index.concerned(service))
        routes = [known.status.route for known in concerned if known]
        found = {one.port for one in routes if one and one.local.fronted and service_of(one.local) == service}
        if owner := owner_of(self._index.stored(service)):
            known = self._index.intent(owner[0])
            if known and known.stored.uid == owner[1] and known.status.route:
                found.add(known.status.route.port)
        return frozenset(found)
