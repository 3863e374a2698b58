"""Which objects make up which route.

A route (`status.route`) is read together with its Service, the EndpointSlices and the consent of that, the Secrets of
its remote backends and the spec of its own object. The index applies the batches of a watch and says which routes each
of them concerns. Pure.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import NamedTuple

from controller.api.contract.route import Remote, Route, RouteKey, RouteKind
from controller.api.kubernetes.endpoints import count_of_ready
from controller.api.kubernetes.fronting import SLICES_OF
from controller.api.kubernetes.objects import MANAGED_BY, EndpointSlice, Service
from controller.api.registry import REFERENCE_GRANT, Program, watched_by
from controller.api.resources.model import class_of
from controller.api.schema.errors import InvalidObjectError
from controller.intent.consent import GrantTable, Permission, any_grant_in, service_ref
from controller.store.cache import Cache
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch
from xds_server.resources.secret import Values
from xds_server.routes.contests import Contests
from xds_server.routes.credentials import ServingProblem
from xds_server.routes.record import RouteRecord, ended, ends_route, is_decided, read_record, referred
from xds_server.routes.shadow_mode import ReadShadowed
from xds_server.routes.validation import Ask, claims_of

logger = logging.getLogger(__name__)

ROUTE_KINDS: tuple[str, ...] = (RouteKind.MODEL,)
"""The kinds of objects whose routes are served."""

KINDS = watched_by(Program.XDS_SERVER)
"""The kinds of objects that routes are read from."""

STATUS_FIELDS = dict.fromkeys(ROUTE_KINDS, ("conditions", "observedGeneration", "route", "withdrawn"))
"""What is read of the status of an object that has a route. The rest of it is as much again: verdicts, history."""


class Affected(NamedTuple):
    """What a batch concerns: routes that must be translated again, and all objects that changed."""

    routes: frozenset[RouteKey]
    objects: frozenset[ObjectRef]


class RouteIndex:
    """The objects of a watch, and a record for each route in them.

    A route that vanishes from a status keeps its record, and is served on: only a withdrawn route, an object that is
    gone, or another object in its place that was decided to have no route, ends it. So does one that is of another
    `controller_class` (None: all are served). `ask` reads what a route is compared with; None: routes are believed.
    `read_shadowed` reads which remote backends an object in Shadow would use; None: nobody looks whether it could.
    """

    def __init__(
        self,
        controller_class: str | None = None,
        ask: Ask | None = None,
        read_shadowed: ReadShadowed | None = None,
    ) -> None:
        self._class = controller_class
        self._ask = ask
        self._read_shadowed = read_shadowed
        self._cache = Cache()
        self._grants = GrantTable()
        self._contests = Contests()
        self._records: dict[RouteKey, RouteRecord] = {}
        self._routes_with: dict[ObjectRef, set[RouteKey]] = {}

    def apply(self, batch: Batch) -> Affected:
        """Apply the next batch of the watch."""
        objects, routes = self._cache.apply(batch), set[RouteKey]()
        for ref in objects:
            if ref.kind in ROUTE_KINDS:
                if self._read_route(ref):
                    routes.add(_key_of(ref))
                routes |= self._contest(_key_of(ref))
                continue
            if ref.kind == REFERENCE_GRANT.kind:
                self._grants.take(ref, self._cache.find(ref))
                ref = any_grant_in(ref.namespace)  # noqa: PLW2901
            routes |= self._routes_with.get(ref, set())
        return Affected(frozenset(routes), objects)

    def record(self, key: RouteKey) -> RouteRecord | None:
        """Return the record of a route."""
        return self._records.get(key)

    def routes(self) -> frozenset[RouteKey]:
        """List all routes."""
        return frozenset(self._records)

    def published(self) -> tuple[RouteKey, ...]:
        """List the routes that are published."""
        return tuple(key for key, record in self._records.items() if record.published)

    def set_published(
        self,
        key: RouteKey,
        problems: tuple[ServingProblem, ...],
        remotes: tuple[tuple[Remote, Values], ...],
        accepted: Route | None,
        left: int | None = None,
    ) -> frozenset[RouteKey]:
        """Record that a route was published as it is now, or that it is gone from what is published.

        Who is served on a port has it from now on, and who left one may have it no longer: returns the other routes
        that it matters to.
        """
        record = self._records.get(key)
        if record is None:
            return frozenset()
        if record.route is None:
            del self._records[key]
            return frozenset()
        new = replace(record, accepted=accepted, left=left, published=record.route, problems=problems, remotes=remotes)
        self._set(key, new)
        return self._contest(key)

    def find(self, ref: ObjectRef) -> StoredObject | None:
        """Return an object; one that has a route as it was when the route was decided."""
        if ref.kind not in ROUTE_KINDS:
            return self._cache.find(ref)
        record = self._records.get(_key_of(ref))
        return record.decided_from if record else None

    def slices(self, namespace: str, service: str) -> tuple[EndpointSlice, ...]:
        """Return the EndpointSlices of a Service, without those that cannot be understood."""
        slices = []
        for stored in self._cache.slices_of(namespace, service):
            try:
                slices.append(stored.parsed_as(EndpointSlice))
            except InvalidObjectError as error:
                logger.warning("endpoint slice not understood", extra={"object": str(stored.ref), "error": str(error)})
        return tuple(slices)

    def left(self, key: RouteKey, record: RouteRecord, now: int) -> int | None:
        """Return the port that a route was served on before `now`, while its Service at the gateway leads there.

        That Service moves on once every Envoy has the next port, which may take one of them longer than a port that is
        left is served on (docs/adr/0067). Only what was its own counts: slices alone give nobody a port.
        """
        service = record.asked.gateway_service if record.asked else ""
        had = [port for port in (record.accepted and record.accepted.port, record.left) if port not in (None, now)]
        if not (service and had):
            return None
        led = self._led_to(key.namespace, service)
        return next((port for port in had if port in led), None)

    def _led_to(self, namespace: str, service: str) -> frozenset[int | None]:
        """List the ports that a Service at the gateway leads its clients to, by EndpointSlices of the controller's."""
        ours = (one for one in self.slices(namespace, service) if one.metadata.labels.get(MANAGED_BY) == SLICES_OF)
        return frozenset(given.port for one in ours for given in one.ports or ())

    def service(self, namespace: str, name: str) -> Service | None:
        """Find a Service; one that cannot be read is as good as none."""
        stored = self._cache.find(service_ref(namespace, name))
        try:
            return stored.parsed_as(Service) if stored else None
        except InvalidObjectError:
            return None

    def permissions(self, namespace: str) -> frozenset[Permission]:
        """Return what the ReferenceGrants of a namespace permit to objects that have a route."""
        return self._grants.permissions(namespace)

    def winner(self, thing: int | str) -> RouteKey | None:
        """Say whose a port or a host is, of the routes that say so; None if none does."""
        return self._contests.winner(thing)

    def ready_envoys(self, namespace: str, service: str) -> int:
        """Count the Envoys of this Service that are ready, and share what replicas take; none counts as one."""
        return max(1, count_of_ready(self.slices(namespace, service)))

    def limited(self) -> frozenset[RouteKey]:
        """List the routes that limit how many requests their replicas get."""
        return frozenset(
            key for key, record in self._records.items() if record.route and record.route.local.max_requests_per_replica
        )

    def all_decided(self) -> bool:
        """Tell whether a controller has decided on every object that may have a route."""
        objects = (stored for kind in ROUTE_KINDS for stored in self._cache.objects(kind).values())
        return all(is_decided(one) for one in objects if self._is_ours(one))

    def _is_ours(self, stored: StoredObject) -> bool:
        return self._class is None or class_of(stored.raw) == self._class

    def _read_route(self, ref: ObjectRef) -> bool:
        """Read the route of an object that changed; tell whether it must be translated again."""
        key, stored = _key_of(ref), self._cache.find(ref)
        if stored and not self._is_ours(stored):
            stored = None
        before = self._records.get(key, RouteRecord())
        if stored is None or ends_route(stored, before):
            if key in self._records:
                self._set(key, ended(before))
            return True
        record, is_news = read_record(stored, before, self._ask, self._read_shadowed)
        if record.route or key in self._records:
            self._set(key, record)
        return is_news

    def _contest(self, key: RouteKey) -> frozenset[RouteKey]:
        """Take in which port and which hosts a route says are its own; return the others that it matters to."""
        if self._ask is None:
            return frozenset()
        record = self._records.get(key)
        if record is None or record.route is None or record.asked is None:
            return self._contests.claim(key, {})
        left = self.left(key, record, record.route.port)
        return self._contests.claim(key, claims_of(key, record.route, record.asked, record.accepted, left))

    def _set(self, key: RouteKey, record: RouteRecord) -> None:
        before = self._records.get(key)
        had, has = (referred(key, one) for one in (before, record))
        for ref in had - has:
            self._routes_with[ref].discard(key)
            if not self._routes_with[ref]:
                del self._routes_with[ref]
        for ref in has - had:
            self._routes_with.setdefault(ref, set()).add(key)
        self._records[key] = record


def _key_of(ref: ObjectRef) -> RouteKey:
    return RouteKey(RouteKind(ref.kind), ref.namespace, ref.name)
