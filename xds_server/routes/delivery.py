"""From the store to the streams: watch routes and endpoints, translate what changed, publish the snapshot."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import traceback
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from controller.api.contract.credentials import inline_client_secret
from controller.api.contract.route import LocalBackend, Remote, Route, RouteKey
from controller.api.contract.status import is_withdrawn
from controller.api.kubernetes.endpoints import EndpointGuard, Replica, admit_all, count_of_ready, replicas_of
from controller.api.kubernetes.objects import EndpointSlice
from controller.api.registry import SERVICE, Program, watched_by
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.store.cache import Cache
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch, ObjectStore
from xds_server.resources.secret import Values
from xds_server.resources.settings import EnvoySettings
from xds_server.resources.translator import Translator
from xds_server.routes.credentials import MODEL, OwnSecrets
from xds_server.routes.gateway_size import GatewaySize
from xds_server.routes.protection import has_inline, is_inline, protected, referred_secrets
from xds_server.routes.retained import DepartedResources, Owner
from xds_server.snapshot.assembly import Assembly
from xds_server.snapshot.snapshot import Resource, ResourceKey, Snapshot

logger = logging.getLogger(__name__)

KINDS = watched_by(Program.XDS_SERVER)

_MODELS_PER_TURN = 5


class Publisher(Protocol):
    """Where a snapshot goes: the xDS server."""

    def publish(self, snapshot: Snapshot, changed: frozenset[ResourceKey]) -> None:
        """Deliver a snapshot, and the keys of all that differs from the one before."""


@dataclass(frozen=True, slots=True)
class Delivered:
    """What was last published for one model."""

    route: Route
    versions: tuple[tuple[ResourceKey, str], ...]


class Delivery:
    """Keeps the published snapshot equal to what statuses, EndpointSlices and Secrets say. A change costs one model.

    `observer` is told of each model that was looked at again, whether or not anything of it was published.
    `gateway_service` is the Service of the Envoys (namespace, name): its ready endpoints share what replicas take at
    most. Without it they are as many as the settings say.
    """

    def __init__(
        self,
        store: ObjectStore,
        publisher: Publisher,
        settings: EnvoySettings,
        own: OwnSecrets | None = None,
        guard: EndpointGuard = admit_all,
    ) -> None:
        self.observer: Callable[[Iterable[RouteKey]], None] = lambda models: None
        self.gateway_service: tuple[str, str] | None = None
        self.gateway_size = GatewaySize(settings.envoys, self._publish_resized, settings.timing.resized_every)
        self._store = store
        self._publisher = publisher
        self._timing = settings.timing
        self._translator = Translator(settings)
        self._own = own or OwnSecrets()
        self._guard = guard
        self._cache = Cache()
        self._routes: dict[RouteKey, Route] = {}
        self._uids: dict[RouteKey, str] = {}
        self._delivered: dict[RouteKey, Route] = {}
        self._models_of: dict[ObjectRef, set[RouteKey]] = {}
        self._problems: dict[RouteKey, tuple[str, ...]] = {}
        self._remotes: dict[RouteKey, tuple[Remote, Values]] = {}
        self._decided: dict[ObjectRef, StoredObject] = {}
        self._assembly: Assembly[Owner] = Assembly()
        self.departed = DepartedResources(self._assembly, self._tell, settings.timing.departed)
        self._due: set[RouteKey] = set()
        self._turn = asyncio.Lock()
        self.published = False

    async def run(self) -> None:
        """Publish every change, until cancelled or until the store ends its watch.

        The first snapshot waits a moment for models that nobody has decided on yet. An Envoy that reconnects loses what
        a snapshot lacks: without the wait, statuses lost with a disk would take down what still serves.
        """
        batches = self._store.watch(KINDS)
        with contextlib.closing(self.departed), contextlib.closing(self.gateway_size):
            async for batch in batches:
                async with self._turn:
                    self._take_in(batch)
                    if not self.published:
                        await self._until_decided(batches)
                    await self._publish()

    async def _until_decided(self, batches: AsyncIterator[Batch]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.first_snapshot):
                while not self._all_decided() and (batch := await anext(batches, None)):
                    self._take_in(batch)

    def delivered(self, model: RouteKey) -> Delivered | None:
        """Say what was last published for a model."""
        route = self._delivered.get(model)
        return Delivered(route, tuple(self._assembly.versions(model))) if route else None

    def models(self) -> Iterable[RouteKey]:
        """List the models whose routes were published."""
        return tuple(self._delivered)

    def route(self, model: RouteKey) -> Route | None:
        """Return the route that was last published for a model, as the controller wrote it."""
        return self._delivered.get(model)

    def versions(self, model: RouteKey) -> Iterable[tuple[ResourceKey, str]]:
        """List what was last published for a model."""
        return self._assembly.versions(model)

    def problems(self, model: RouteKey) -> tuple[str, ...]:
        """Say why requests for a model stay local though its route lets them leave: a credential that is not there."""
        return self._problems.get(model, ())

    def remote(self, model: RouteKey) -> tuple[Remote, Values] | None:
        """Return the remote side of a model with its credentials; None if there is none, or one is missing."""
        return self._remotes.get(model)

    def models_with(self, keys: Iterable[ResourceKey]) -> frozenset[RouteKey]:
        """Find the models that these resources belong to."""
        return frozenset(one for one in self._assembly.owners_of(keys) if isinstance(one, RouteKey))

    def _take_in(self, batch: Batch) -> None:
        for ref in self._cache.apply(batch):
            self._due |= self._take_in_route(ref) if ref.kind == MODEL else self._models_of.get(ref, set())
            if self.gateway_service and ref == ObjectRef(SERVICE.kind, *self.gateway_service):
                ready = count_of_ready(self._slices(*self.gateway_service))
                self._due |= self._limited() if self.gateway_size.follow(ready) else set()

    def _limited(self) -> set[RouteKey]:
        return {model for model, route in self._routes.items() if route.local.max_requests_per_replica}

    def _take_in_route(self, ref: ObjectRef) -> set[RouteKey]:
        model = RouteKey.of_model(ref.namespace, ref.name)
        stored, before = self._cache.find(ref), self._routes.get(model)
        if stored is None or is_withdrawn(stored.status) or self._is_successor_without_route(model, stored):
            self._route(model, None)
            self._decided.pop(ref, None)
            return {model}
        route = _route_of(stored)
        if route is None:
            # An object whose route vanished keeps its last good configuration.
            return set()
        self._uids[model] = str(stored.metadata["uid"])
        if not self._keeps_anew(stored, route) and route == before:
            return set()
        self._route(model, route)
        return {model}

    def _is_successor_without_route(self, model: RouteKey, stored: StoredObject) -> bool:
        """Tell whether an object was decided to have no route, and what is served is that of one before of its name.

        Deleted and created at once may look like a change. What is not decided on yet keeps what there was.
        """
        followed = self._uids.get(model, stored.metadata["uid"]) != stored.metadata["uid"]
        return followed and _is_decided(stored) and not stored.status.get("route")

    def _keeps_anew(self, stored: StoredObject, route: Route) -> bool:
        """Keep an object that holds a credential of its route itself; tell whether there is a new one to read.

        A credential is for the token endpoint that it stands beside. The spec may be newer than the route, also when
        the status says otherwise: what is refused keeps the route of before. And the spec in between may never come.
        """
        kept = self._decided.pop(stored.ref, None)
        if route.remote is None or not is_inline(route.remote):
            return False
        fitting = next((one for one in (stored, kept) if one and has_inline(one.raw, route.remote)), None)
        if fitting:
            self._decided[stored.ref] = fitting
        return (kept and inline_client_secret(kept.raw)) != (fitting and inline_client_secret(fitting.raw))

    def _found(self, ref: ObjectRef) -> StoredObject | None:
        return self._decided.get(ref) if ref.kind == MODEL else self._cache.find(ref)

    def _route(self, model: RouteKey, route: Route | None) -> None:
        before = self._routes.pop(model, None)
        if route is None:
            self._uids.pop(model, None)
        for ref in self._referred(model, before):
            self._models_of[ref].discard(model)
            if not self._models_of[ref]:
                del self._models_of[ref]
        for ref in self._referred(model, route):
            self._models_of.setdefault(ref, set()).add(model)
        if route:
            self._routes[model] = route

    def _all_decided(self) -> bool:
        return all(map(_is_decided, self._cache.objects(MODEL).values()))

    async def _publish(self) -> None:
        due, self._due = sorted(self._due), set()
        changes: list[tuple[RouteKey, tuple[Resource, ...]]] = []
        for model in due:
            try:
                changes.append((model, self._resources(model)))
            except Exception as error:
                # A mistake of ours shows with one model, which keeps what it has; the others go on. The words of the
                # exception may quote a secret.
                self._problems[model] = (f"what is asked for cannot be translated ({type(error).__name__})",)
                logger.error("model not translated", extra=_where(model, error))
            if len(changes) % _MODELS_PER_TURN == 0:
                await asyncio.sleep(0)  # the streams and the health checks have their turn
        changed = self._assembly.replace([*self.departed.kept_after(changes), *changes])
        for model in due:
            if route := self._routes.get(model):
                self._delivered[model] = route
            else:
                self._delivered.pop(model, None)
        if changed or not self.published:
            self.published = True
            self._tell(changed)
        if due:
            self.observer(due)

    async def _publish_resized(self) -> None:
        async with self._turn:
            self._due |= self._limited()
            await self._publish()

    def _tell(self, changed: frozenset[ResourceKey]) -> None:
        self._publisher.publish(self._assembly.snapshot, changed)

    def _resources(self, model: RouteKey) -> tuple[Resource, ...]:
        route = self._routes.get(model)
        self._problems.pop(model, None)
        self._remotes.pop(model, None)
        if route is None:
            return ()
        found = protected(model, route, self._found, self._own)
        if found.problems:
            self._problems[model] = found.problems
        is_limited = bool(found.route.remote and route.local.max_requests_per_replica)
        envoys = self.gateway_size.shared_by() if is_limited else 1
        resources = self._translator.resources(model, found.route, self._replicas(route.local), envoys)
        if found.route.remote:
            self._remotes[model] = (found.route.remote, found.values)
        return (*found.secrets, *resources)

    def _replicas(self, local: LocalBackend) -> tuple[Replica, ...]:
        admitted = self._guard(self._slices(local.namespace, local.service), custom=bool(local.custom_endpoints))
        return replicas_of(admitted.slices, local.port_name)

    def _slices(self, namespace: str, service: str) -> tuple[EndpointSlice, ...]:
        slices = []
        for stored in self._cache.slices_of(namespace, service):
            try:
                slices.append(stored.parsed_as(EndpointSlice))
            except InvalidObjectError as error:
                logger.warning("endpoint slice not understood", extra={"object": str(stored.ref), "error": str(error)})
        return tuple(slices)

    @staticmethod
    def _referred(model: RouteKey, route: Route | None) -> frozenset[ObjectRef]:
        """Name what a route is read together with: a change of any of it is a change for the model."""
        if route is None:
            return frozenset()
        service = ObjectRef(SERVICE.kind, route.local.namespace, route.local.service)
        return frozenset((service, *(referred_secrets(model, route.remote) if route.remote else ())))


def _where(model: RouteKey, error: Exception) -> dict[str, str]:
    frames = [f"{frame.name}:{frame.lineno}" for frame in traceback.extract_tb(error.__traceback__)]
    return {"model": str(model), "error": type(error).__name__, "at": " ".join(frames[-3:])}


def _is_decided(stored: StoredObject) -> bool:
    return "observedGeneration" in stored.status


def _route_of(stored: StoredObject) -> Route | None:
    raw = stored.status.get("route")
    if raw is None:
        return None
    try:
        return parse(Route, raw)
    except InvalidObjectError as error:
        logger.warning("route not understood", extra={"object": str(stored.ref), "error": str(error)})
        return None
