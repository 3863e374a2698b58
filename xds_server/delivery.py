"""From the store to the streams: watch routes and endpoints, translate what changed, publish the snapshot."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from typing import Protocol

from controller.api.base import InvalidObjectError, parse
from controller.api.core import EndpointSlice
from controller.api.endpoints import Replica, replicas_of
from controller.api.route import LocalBackend, ModelRoute
from controller.store.cache import Cache
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch, ObjectStore
from xds_server.resources.model import Gateway, resources_for
from xds_server.resources.names import ModelKey
from xds_server.snapshot.assembly import Assembly
from xds_server.snapshot.snapshot import Resource, ResourceKey, Snapshot

logger = logging.getLogger(__name__)

MODEL = "ModelDeployment"
KINDS = (MODEL, "EndpointSlice")

_FIRST_SNAPSHOT_SECONDS = 5.0
_MODELS_PER_TURN = 5


class Publisher(Protocol):
    """Where a snapshot goes: the xDS server."""

    def publish(self, snapshot: Snapshot, changed: frozenset[ResourceKey]) -> None:
        """Deliver a snapshot, and the keys of all that differs from the one before."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was last published for one model."""

    route: ModelRoute
    versions: tuple[tuple[ResourceKey, str], ...]


class Delivery:
    """Keeps the published snapshot equal to what the statuses and EndpointSlices say. One change costs one model."""

    def __init__(self, store: ObjectStore, publisher: Publisher, gateway: Gateway) -> None:
        self._store = store
        self._publisher = publisher
        self._gateway = gateway
        self._cache = Cache()
        self._routes: dict[ModelKey, ModelRoute] = {}
        self._models_of: dict[ObjectRef, set[ModelKey]] = {}
        self._assembly: Assembly[ModelKey] = Assembly()
        self._due: set[ModelKey] = set()
        self.published = False

    async def run(self) -> None:
        """Publish every change, until cancelled or until the store ends its watch.

        The first snapshot waits a moment for models that nobody has decided on yet. An Envoy that reconnects loses what
        a snapshot lacks: without the wait, statuses lost with a disk would take down what still serves.
        """
        batches = self._store.watch(KINDS)
        async for batch in batches:
            self._take_in(batch)
            if not self.published:
                await self._until_decided(batches)
            await self._publish()

    async def _until_decided(self, batches: AsyncIterator[Batch]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_SNAPSHOT_SECONDS):
                while not self._all_decided() and (batch := await anext(batches, None)):
                    self._take_in(batch)

    def delivered(self, model: ModelKey) -> Delivered | None:
        """Say what was last published for a model."""
        route = self._routes.get(model)
        return Delivered(route, tuple(self._assembly.versions(model))) if route else None

    def models_with(self, keys: Iterable[ResourceKey]) -> frozenset[ModelKey]:
        """Find the models that these resources belong to."""
        return self._assembly.owners_of(keys)

    def _take_in(self, batch: Batch) -> None:
        for ref in self._cache.apply(batch):
            self._due |= self._take_in_route(ref) if ref.kind == MODEL else self._models_of.get(ref, set())

    def _take_in_route(self, ref: ObjectRef) -> set[ModelKey]:
        model = ModelKey(ref.namespace, ref.name)
        stored, before = self._cache.find(ref), self._routes.get(model)
        if stored is None:
            self._route(model, None)
            return {model}
        route = _route_of(stored)
        if route is None or route == before:
            # An object whose route vanished keeps its last good configuration.
            return set()
        self._route(model, route)
        return {model}

    def _route(self, model: ModelKey, route: ModelRoute | None) -> None:
        before = self._routes.pop(model, None)
        if before:
            self._models_of[_service(before.local)].discard(model)
        if route:
            self._routes[model] = route
            self._models_of.setdefault(_service(route.local), set()).add(model)

    def _all_decided(self) -> bool:
        return all("observedGeneration" in stored.status for stored in self._cache.objects(MODEL).values())

    async def _publish(self) -> None:
        due, self._due = sorted(self._due), set()
        changes: list[tuple[ModelKey, tuple[Resource, ...]]] = []
        for model in due:
            changes.append((model, self._resources(model)))
            if len(changes) % _MODELS_PER_TURN == 0:
                await asyncio.sleep(0)  # the streams and the health checks have their turn
        changed = self._assembly.replace(changes)
        if changed or not self.published:
            self.published = True
            self._publisher.publish(self._assembly.snapshot, changed)

    def _resources(self, model: ModelKey) -> tuple[Resource, ...]:
        route = self._routes.get(model)
        return resources_for(model, route, self._replicas(route.local), self._gateway) if route else ()

    def _replicas(self, local: LocalBackend) -> tuple[Replica, ...]:
        slices = []
        for stored in self._cache.slices_of(local.namespace, local.service):
            try:
                slices.append(parse(EndpointSlice, stored.raw))
            except InvalidObjectError as error:
                logger.warning("endpoint slice not understood", extra={"object": str(stored.ref), "error": str(error)})
        return replicas_of(slices, local.port_name)


def _service(local: LocalBackend) -> ObjectRef:
    return ObjectRef("Service", local.namespace, local.service)


def _route_of(stored: StoredObject) -> ModelRoute | None:
    raw = stored.status.get("route")
    if raw is None:
        return None
    try:
        return parse(ModelRoute, raw)
    except InvalidObjectError as error:
        logger.warning("route not understood", extra={"object": str(stored.ref), "error": str(error)})
        return None
