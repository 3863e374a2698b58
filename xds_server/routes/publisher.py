"""From the store to the streams: watch routes and what they are read with, translate what is due, publish."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Protocol

from controller.api.contract.route import Remote, Route, RouteKey
from controller.api.registry import SERVICE
from controller.api.resources.backend import RemoteBackend
from controller.store.objects import ObjectRef
from controller.store.protocol import Batch, ObjectStore
from xds_server.resources.secret import Values
from xds_server.routes.credentials import ServingProblem
from xds_server.routes.gateway_size import GatewaySize
from xds_server.routes.index import KINDS, RouteIndex
from xds_server.routes.retained import RetainingAssembly
from xds_server.routes.translation import RouteTranslator, ServingOptions, TranslatedRoute
from xds_server.snapshot.scope import GATEWAY, Scope
from xds_server.snapshot.snapshot import Resource, ResourceKey, Snapshot

_ROUTES_PER_TURN = 5

# After so many a snapshot is published, and what has changed meanwhile is taken in. Namespaces take turns.
_ROUTES_PER_SNAPSHOT = 20

# Certificates are looked at again once one of them has expired, or after this many seconds: clocks are set, too.
_LOOKS_AT_ENDS = 3600.0


class SnapshotSink(Protocol):
    """Where snapshots go: see `XdsServer`."""

    def publish(self, snapshot: Snapshot, changed: frozenset[ResourceKey], scope: Scope) -> None:
        """Deliver the snapshot of a scope, and the keys of all that differs from the one before."""


class Publisher:
    """Keeps the published snapshots equal to what statuses, EndpointSlices and Secrets say. A change costs one route.

    Each scope has a snapshot of its own. `on_change` is called with the routes that were looked at again, whether or
    not anything of them was published.
    """

    def __init__(
        self,
        store: ObjectStore,
        sink: SnapshotSink,
        options: ServingOptions,
        on_change: Callable[[frozenset[RouteKey]], None],
    ) -> None:
        self._store = store
        self._sink = sink
        self._options = options
        self._on_change = on_change
        self._timing = options.gateway.timing
        self._index = RouteIndex(options.controller_class, options.ask, options.read_shadowed)
        self._translator = RouteTranslator(self._index, options)
        self._assemblies = {GATEWAY: self._new_assembly(GATEWAY)}
        self._due: dict[str, dict[RouteKey, None]] = {}  # by namespace, the one whose turn is next first
        self._turn = asyncio.Lock()
        self._ends: dict[RouteKey, datetime] = {}
        self._expiry: asyncio.Task[None] | None = None
        gateway, seconds = options.gateway, self._timing.resized_every
        self.gateway_size = GatewaySize(gateway.envoys, gateway.checks_shared_by, self._publish_resized, seconds)
        self.published = False
        """Whether there is a first snapshot."""

    async def run(self) -> None:
        """Publish every change, until cancelled or until the store ends its watch.

        The first snapshot waits a moment for objects that nobody has decided on yet. An Envoy that reconnects loses
        what a snapshot lacks: without the wait, statuses lost with a disk would take down what still serves.
        """
        batches = self._store.watch(KINDS)
        coming = asyncio.ensure_future(anext(batches, None))
        with contextlib.closing(self):
            try:
                while (batch := await coming) is not None:
                    async with self._turn:
                        self._apply(batch)
                        if not self.published:
                            await self._until_decided(batches)
                    coming = asyncio.ensure_future(anext(batches, None))
                    await self._publish(until=coming.done)
                await self._publish()
            finally:
                coming.cancel()

    async def replace_default_remote(self, default_remote: RemoteBackend) -> None:
        """Serve with another credential of the default backend from now on."""
        async with self._turn:
            self._translator.replace_default_remote(default_remote)
            self._add_due(self._index.routes())
        if self.published:
            await self._publish()

    def close(self) -> None:
        """Stop all timers."""
        self.gateway_size.close()
        if self._expiry:
            self._expiry.cancel()
        for assembly in self._assemblies.values():
            assembly.close()

    def routes(self) -> Iterable[RouteKey]:
        """List the routes that are published."""
        return self._index.published()

    def route(self, key: RouteKey) -> Route | None:
        """Return a route as it was last published, in the words of the controller."""
        record = self._index.record(key)
        return record.published if record else None

    def problems(self, key: RouteKey) -> tuple[ServingProblem, ...]:
        """Say why requests stay local though their route lets them leave: a credential that is not there."""
        record = self._index.record(key)
        return record.problems if record else ()

    def remotes(self, key: RouteKey) -> tuple[tuple[Remote, Values], ...]:
        """Return the remote backends that a route is served with, each with its credentials."""
        record = self._index.record(key)
        return record.remotes if record else ()

    def versions(self, key: RouteKey, scope: Scope = GATEWAY) -> Iterable[tuple[ResourceKey, str]]:
        """List what was last published for a route in a scope."""
        assembly = self._assemblies.get(scope)
        return assembly.versions(key) if assembly else ()

    def routes_with(self, keys: Iterable[ResourceKey]) -> frozenset[RouteKey]:
        """Find the routes that these resources belong to."""
        wanted = tuple(keys)
        return frozenset().union(*(one.routes_with(wanted) for one in self._assemblies.values()))

    async def _until_decided(self, batches: AsyncIterator[Batch]) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.first_snapshot):
                while not self._index.all_decided() and (batch := await anext(batches, None)):
                    self._apply(batch)

    def _apply(self, batch: Batch) -> None:
        routes, objects = self._index.apply(batch)
        self._add_due(routes)
        service = self._options.gateway_service
        if (
            service
            and ObjectRef(SERVICE.kind, *service) in objects
            and self.gateway_size.set_ready(self._index.ready_envoys(*service))
        ):
            self._add_due(self._index.limited())

    def _add_due(self, keys: Iterable[RouteKey]) -> None:
        for key in sorted(keys):
            self._due.setdefault(key.namespace, {})[key] = None

    def _take_due(self, most: int) -> Iterator[RouteKey]:
        """Take one of each namespace in turn."""
        while self._due and most > 0:
            namespace = next(iter(self._due))
            keys = self._due.pop(namespace)
            yield (key := next(iter(keys)))
            del keys[key]
            if keys:
                self._due[namespace] = keys
            most -= 1

    async def _publish_resized(self) -> None:
        async with self._turn:
            self._add_due(self._index.limited())
        await self._publish()

    async def _say_what_expired(self) -> None:
        """Look again at routes whose certificates end, as long as there are any."""
        while self._ends:
            left = (min(self._ends.values()) - datetime.now(UTC)).total_seconds()
            await asyncio.sleep(min(max(left, 1.0), _LOOKS_AT_ENDS))
            async with self._turn:
                now = datetime.now(UTC)
                self._add_due(key for key, ends in self._ends.items() if ends <= now)
            if self._due:
                await self._publish()

    def _note_ends(self, translated: dict[RouteKey, TranslatedRoute], now: datetime) -> None:
        """Note which certificates are still to end."""
        for key, one in translated.items():
            if one.ends and one.ends > now:
                self._ends[key] = one.ends
            else:
                self._ends.pop(key, None)
        if self._ends and (self._expiry is None or self._expiry.done()):
            self._expiry = asyncio.create_task(self._say_what_expired())

    async def _publish(self, until: Callable[[], bool] = lambda: False) -> None:
        """Publish some of what is due, and then the rest `until` there is something to be taken in first."""
        is_first = True
        while is_first or (self._due and not until()):
            async with self._turn:
                await self._publish_some()
            is_first = False

    async def _publish_some(self) -> None:
        # The first snapshot is whole: an Envoy that reconnects loses what it lacks.
        most = _ROUTES_PER_SNAPSHOT if self.published else sum(map(len, self._due.values()))
        due = list(self._take_due(most))
        now = datetime.now(UTC)
        translated: dict[RouteKey, TranslatedRoute] = {}
        for number, key in enumerate(due):
            translated[key] = self._translator.translate(key, self.gateway_size.envoys, now)
            if translated[key].is_limited:
                self.gateway_size.set_used()
            if number % _ROUTES_PER_TURN == _ROUTES_PER_TURN - 1:
                await asyncio.sleep(0)  # the streams and the health checks have their turn
        changed = {
            scope: self._assembly(scope).replace(changes) for scope, changes in self._changes(translated).items()
        }
        for key, one in translated.items():
            # Who waited for a port that was left just now is due next.
            self._add_due(self._index.set_published(key, one.problems, one.remotes, one.accepted, one.left))
        self._note_ends(translated, now)
        is_first, self.published = not self.published, True
        for scope, assembly in self._assemblies.items():
            if is_first or changed.get(scope):
                self._sink.publish(assembly.snapshot, changed.get(scope, frozenset()), scope)
        if due:
            self._on_change(frozenset(due))

    def _changes(
        self, translated: dict[RouteKey, TranslatedRoute]
    ) -> dict[Scope, list[tuple[RouteKey, tuple[Resource, ...]]]]:
        """Sort by scope what routes have from now on; one that cannot be translated keeps what it has."""
        changes: dict[Scope, list[tuple[RouteKey, tuple[Resource, ...]]]] = {}
        for key, one in translated.items():
            if one.resources is not None:
                for scope in self._translator.scopes(key):
                    changes.setdefault(scope, []).append((key, one.resources.get(scope, ())))
        return changes

    def _assembly(self, scope: Scope) -> RetainingAssembly:
        if scope not in self._assemblies:
            self._assemblies[scope] = self._new_assembly(scope)
        return self._assemblies[scope]

    def _new_assembly(self, scope: Scope) -> RetainingAssembly:
        return RetainingAssembly(partial(self._sink.publish, scope=scope), self._timing)
