"""An xDS server in this process, an Envoy, and models on them: each test publishes one of its own."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from controller.api.contract.route import Route, RouteKey
from controller.api.timing import REAL, Timing
from controller.gateway.bootstrap import HostPort
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import SHARED_PORT, Model, Reply, Wanted, route_of
from tests.support.envoy import Envoy, as_it_is
from tests.support.http import plain_http
from tests.support.network import Network, unused_port
from tests.support.timing import PATIENT
from tests.support.waiting import until
from xds_server.loads.loads import Loads
from xds_server.resources import names
from xds_server.resources.secret import entrance_secrets, secret_resources
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.routes.retained import RetainingAssembly
from xds_server.snapshot.snapshot import Resource, ResourceKey, Snapshot
from xds_server.stream.server.clients import ClientState
from xds_server.stream.server.server import XdsServer
from xds_server.stream.server.telemetry import ClientEvent

TOKEN = "the-token-of-these-tests"
_BELOW_MODELS, _MOST_MODELS = 9000, 1000
"""Models have the ports from 9001 on."""


MEASURED = replace(REAL, gateway=replace(REAL.gateway, vacated=0.0))
"""The product's own, for benchmarks; but that a model that one withdraws is gone at once."""
AT_ONCE = replace(PATIENT, gateway=replace(PATIENT.gateway, vacated=0.0))
"""The same for tests: no pause of the machine decides where a request goes."""
COUNTED = replace(AT_ONCE, gateway=replace(AT_ONCE.gateway, unused_near=600.0, unused_far=600.0))
"""For tests that count who is at which side: of those that wait for a connection Envoy does not count how many are for
which replica.
"""


class Plane:
    """Everything between the clients and the backends."""

    def __init__(self, network: Network, backends: Backends, folder: Path, timing: Timing = AT_ONCE) -> None:
        self.network = network
        self.timing = timing
        self.backends = backends
        self.envoys: list[Envoy] = []
        self._folder = folder
        self._assembly = RetainingAssembly(self._send, timing.gateway)
        self._routes: dict[RouteKey, Route] = {}
        self.overdue: list[ResourceKey] = []
        """What the server sent though something it requires was not acknowledged in time."""
        self.loads = Loads(timing.reports)
        """What the Envoys reported."""
        self.xds = HostPort("127.0.0.1", unused_port())
        self._server = XdsServer(TOKEN, self._observe, None, self.loads, timing.streams)
        self._models, self._probes = itertools.count(1), itertools.count(1)
        self._client = plain_http(timeout=None, limits=httpx.Limits(max_keepalive_connections=0))

    @property
    def envoy(self) -> Envoy:
        return self.envoys[0]

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Plane]:
        await self._server.start(str(self.xds))
        self._server.publish(self._assembly.snapshot, frozenset())
        try:
            yield self
        finally:
            for envoy in self.envoys:
                await envoy.stop()
            await self._client.aclose()
            self._assembly.close()
            await self._server.stop(0)

    async def die(self) -> None:
        """Stop the server: the Envoys go on with what they have."""
        await self._server.stop(0)

    async def restart(self, pause: float = 0.0) -> None:
        """Stop the server, and after a pause start another in its place, which knows of before only what it serves.

        Wait for the Envoys.
        """
        await self._server.stop(0.2)
        await asyncio.sleep(pause)
        self.loads = Loads(self.timing.reports)
        for key in self._routes:
            self._tell_loads(key)
        self._server = XdsServer(TOKEN, self._observe, None, self.loads, self.timing.streams)
        await self._server.start(str(self.xds))
        snapshot = self._assembly.snapshot
        self._server.publish(
            snapshot, frozenset(one.key for by_name in snapshot.by_type.values() for one in by_name.values())
        )

        async def are_back() -> bool:
            return len(self.clients) == len(self.envoys) and all(client.initialised for client in self.clients)

        await until(are_back, "the Envoys are back", within=20)

    async def join(
        self,
        node_id: str = "envoy",
        token: str = TOKEN,
        change: Any = as_it_is,
        *,
        workers: int = 2,
        flags: Sequence[str] = (),
    ) -> Envoy:
        """Start an Envoy that joins, and wait until it has all there is (or has refused it)."""
        envoy = Envoy.joining(node_id, token, self.xds, self._folder, change, workers=workers, flags=flags)
        self.envoys.append(envoy)
        await envoy.started()

        async def connected() -> bool:
            known = any(client.node_id == node_id and client.initialised for client in self.clients)
            return known and await envoy.has_begun()

        await until(connected, f"{node_id} joins")
        return envoy

    @property
    def clients(self) -> tuple[ClientState, ...]:
        return self._server.clients()

    def refused(self) -> dict[ResourceKey, str]:
        """What some Envoy rejects, and why."""
        return {rejection.key: rejection.message for client in self.clients for rejection in client.rejections}

    def versions(self, type_url: str) -> Mapping[str, str]:
        """The resources of one type and their versions."""
        return {name: resource.version for name, resource in self._assembly.snapshot.by_type[type_url].items()}

    def keys(self, model: Model) -> tuple[ResourceKey, ...]:
        """The resources of a model."""
        return tuple(key for key, _ in self._assembly.versions(model.key))

    async def serve(self, wanted: Wanted, *, ready: bool = True) -> Model:
        """Publish a model of its own for a test and wait until every Envoy serves it."""
        number = next(self._models)
        assert number < _MOST_MODELS, "the next port is one that `unused_port` may give"
        key = RouteKey.of_model("ns", f"m{number}")
        model = Model(key, f"http://{self.network.host(1)}:{_BELOW_MODELS + number}/", wanted)
        await self.change(model, wanted, ready=ready)
        return model

    async def change(self, model: Model, wanted: Wanted, *, ready: bool = True) -> Model:
        """Publish a model anew; `ready` waits until every Envoy has it and listens for it.

        Envoy acknowledges a cluster once each of its replicas was checked, and is given the listener after that.
        """
        self.publish(model, wanted)
        if ready:
            await until(lambda: self._acknowledged(model), f"Envoy acknowledges {model.key}: {self.refused()}")
            await until(lambda: self._listening(model), f"Envoy listens for {model.key}")
        return replace(model, wanted=wanted)

    def publish(self, model: Model, wanted: Wanted) -> frozenset[ResourceKey]:
        """Publish a model without waiting for anything; return what changed."""
        replicas = self.backends.replicas if wanted.replicas is None else wanted.replicas
        settings = EnvoySettings(
            address=self.network.host(1),
            authorities=str(wanted.authorities),
            envoys=wanted.envoys,
            checks_shared_by=wanted.checks_shared_by,
            access_log=wanted.access_log,
            connections_per_model=wanted.connections,
            timing=wanted.timing or self.timing.gateway,
            installation=wanted.installation,
            destinations=wanted.destinations,
            shared_port=SHARED_PORT if wanted.hosts else None,
        )
        self._routes[model.key] = route = route_of(model, wanted, self.backends.remote.host)
        resources = Translator(settings).resources(model.key, route, replicas)
        if route.remote and wanted.secrets:
            resources += secret_resources(model.key, route.remote, dict(wanted.secrets), b"the key of versions")
        if wanted.pairs:
            resources += entrance_secrets(
                model.key, dict(wanted.pairs), wanted.client_authorities, b"the key of versions"
            )
        return self._replace(model.key, wanted.change(resources))

    async def withdraw(self, model: Model) -> None:
        """Remove a model and wait until nobody listens for it."""
        self.remove(model)

        async def gone() -> bool:
            return not await self._listening(model)

        await until(gone, f"{model.key} is gone")

    def remove(self, model: Model) -> None:
        """Remove a model without waiting for anything."""
        del self._routes[model.key]
        self._replace(model.key, ())

    def publish_also(self, *resources: Any) -> None:
        """Publish resources that belong to no model."""
        changed = self._assembly.replace([(RouteKey.of_model("", "also"), resources)])
        self._send(self._assembly.snapshot, changed)

    async def acknowledged(self, model: Model) -> None:
        await until(lambda: self._acknowledged(model), f"Envoy acknowledges {model.key}: {self.refused()}")

    async def until_in_flight(self, model: Model, count: int) -> None:
        """Wait until the replicas of a model have so many requests in flight, as Envoy counts them."""

        async def are_there() -> bool:
            name = f"cluster.{model.local_cluster}.upstream_rq_active"
            return sum([await envoy.stat(name) for envoy in self.envoys]) >= count

        await until(are_there, f"{count} requests in flight for {model.key}")

    async def told_of_loads(self) -> None:
        """Wait for two reports of load: one that may have been on its way, and one of all that was before this."""
        for _ in range(2):
            before = self._loads_heard_at()

            async def newly_heard(before: float = before) -> bool:
                return self._loads_heard_at() > before

            await until(newly_heard, "a report of load", within=30)

    async def healthy(self, model: Model, count: int) -> None:
        """Wait until Envoy takes so many replicas for healthy."""

        async def all_envoys_agree() -> bool:
            for envoy in self.envoys:
                hosts = await envoy.hosts(model.local_cluster)
                if sum(not troubles for troubles in hosts.values()) != count:
                    return False
            return True

        await until(all_envoys_agree, f"{count} healthy replicas of {model.key}")

    async def all_go(self, model: Model, side: str) -> list[Reply]:
        """Wait until requests go to one side: ten in a row, each on a connection of its own. Return all replies.

        What Envoy finds out by itself (a check, a name, a token) one of its workers may learn a moment after another.
        """
        replies: list[Reply] = []

        async def all_do() -> bool:
            replies.append(await self.ask(model))
            return len(replies) >= 10 and all(one.route == side for one in replies[-10:])

        await until(all_do, f"requests of {model.key} go to {side}")
        return replies

    async def remote_found_ill(self, model: Model) -> None:
        """Wait until the checks of Envoy find the remote backend of a model ill.

        Its main thread says so, which has told every worker by then.
        """
        (backend,) = {key.name for key in self.keys(model) if names.is_backend(key.name)}

        async def is_ill() -> bool:
            found = [(await envoy.hosts(backend)).get(self.backends.remote.host, {}) for envoy in self.envoys]
            return all("failed_active_health_check" in troubles for troubles in found)

        await until(is_ill, f"the remote backend of {model.key} is found ill")

    async def ask(self, model: Model, method: str = "GET", path: str = "", **more: Any) -> Reply:
        """Send one request with a `probe` of its own, once, on a new connection. Raises httpx.HTTPError."""
        probe = f"{model.key.name}-{next(self._probes)}"
        headers = [("probe", probe), *more.pop("headers", ())]
        loop = asyncio.get_running_loop()
        start = loop.time()
        answer = await self._client.request(method, model.url + path, headers=headers, **more)
        return Reply(
            status=answer.status_code,
            route=",".join(answer.headers.get_list(names.ROUTE_HEADER)),
            headers=[(key.lower(), value) for key, value in answer.headers.multi_items()],
            body=answer.content,
            seconds=loop.time() - start,
            probe=probe,
        )

    def _replace(self, key: RouteKey, resources: tuple[Resource, ...]) -> frozenset[ResourceKey]:
        """Give a model other resources; what it lets go of stays as long as the product retains it."""
        changed = self._assembly.replace([(key, resources)])
        self._tell_loads(key)
        self._send(self._assembly.snapshot, changed)
        return changed

    def _send(self, snapshot: Snapshot, changed: frozenset[ResourceKey]) -> None:
        if changed:
            self._server.publish(snapshot, changed)

    def _tell_loads(self, key: RouteKey) -> None:
        if route := self._routes.get(key):
            self.loads.set_route(key, route, (one for one, _ in self._assembly.versions(key)))
        else:
            self.loads.remove_route(key)

    def _loads_heard_at(self) -> float:
        streams = self.loads.streams(asyncio.get_running_loop().time())
        return max((counts.reported_at for counts in streams.values()), default=0.0)

    def _observe(self, event: ClientEvent) -> None:
        if event.kind == "overdue":
            self.overdue.extend(event.keys)

    async def _acknowledged(self, model: Model) -> bool:
        holdings = self._server.holds(self._assembly.versions(model.key))
        return len(holdings) >= len(self.envoys) and all(holding.complete for holding in holdings)

    async def _listening(self, model: Model) -> bool:
        host, _, port = model.url.removeprefix("http://").strip("/").partition(":")
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            return False
        writer.close()
        return True
