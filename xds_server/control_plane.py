"""The whole xDS server, composed once: both programs start it from here, and so do tests and benchmarks of the whole.

::

    store -> Publisher -> XdsServer -> Envoys
                |             |
                |             +-> Loads (what the Envoys report)
                +-> HealthChecks (of remote backends)
                              all of them -> Reports, changes
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.api.contract.route import RouteKey
from controller.api.destinations import Destinations
from controller.api.kubernetes.endpoints import EndpointGuard, admit_all
from controller.api.resources.backend import RemoteBackend
from controller.api.timing import REAL, Timing
from controller.store.protocol import ObjectStore
from xds_server.health.backend import own_hosts, refusal
from xds_server.health.checks import CheckInputs, CheckMetrics, HealthChecks
from xds_server.health.connection import Connector, SystemResolver
from xds_server.loads.loads import Loads
from xds_server.loads.metrics import LoadMetrics
from xds_server.reports import UNCHECKED, Reports
from xds_server.resources.access_log import AccessLog
from xds_server.resources.translator import EnvoySettings
from xds_server.routes.credentials import ServerSecrets
from xds_server.routes.publisher import Publisher
from xds_server.routes.shadow_mode import shadowed_with
from xds_server.routes.translation import ServingOptions
from xds_server.routes.validation import asked_with
from xds_server.snapshot.scope import Role
from xds_server.stream.server.server import XdsServer
from xds_server.stream.server.telemetry import ClientEvent
from xds_server.stream.tls import ServerTls

ChangeCallback = Callable[[frozenset[RouteKey] | None], None]
"""Called with the routes for which something changed; None: for all of them. It must not wait."""

_MANY = 50
"""Resources whose routes are dearer to find than all routes to look at: a client that joins ACKs everything."""


@dataclass(frozen=True, slots=True)
class ControlPlaneOptions:
    """What one xDS server differs in from another.

    * `node_token` is what an Envoy has to carry to be given secrets where there is no TLS; empty: none is given any.
      `version_key` keys the versions of secrets, which Envoys show, if the token shall not.
    * `gateway_address` is where Envoys listen, `gateway_port` on which port they do so for all models, which are called
      by their hosts there (None: on none), `access_log` which requests they log. `gateway_service` is the Service
      of the Envoys (namespace, name); without it, `envoys` of them share what replicas take at most. `checks_shared_by`
      of them together check a replica as often as the kubelet does. `connections_per_model` is how many clients of one
      model may have at each of them; None sets no bound.
    * `default_remote` is the default backend of the configuration. `guard` says where requests may go.
    * `controller_class` says whose models are served (None: all), `health_checks` whether remote backends are checked.
    * `believes_statuses` says that whoever may write the status of an object may write the object: else a route is
      compared with its object, and has none of the `reserved_ports`; and Secrets are used only if they say they may be.
    * `installation` is the name by which the Envoys know a request that comes back; without one they do not.
    """

    node_token: str = field(default="", repr=False)
    version_key: bytes = field(default=b"", repr=False)
    gateway_address: str = "127.0.0.1"
    gateway_port: int | None = None
    gateway_service: tuple[str, str] | None = None
    envoys: int = 1
    checks_shared_by: int = 1
    connections_per_model: int | None = None
    access_log: AccessLog = AccessLog.OFF
    default_remote: RemoteBackend | None = None
    guard: EndpointGuard = admit_all
    controller_class: str | None = None
    health_checks: bool = True
    believes_statuses: bool = True
    reserved_ports: frozenset[int] = frozenset()
    installation: str = ""
    timing: Timing = REAL

    @property
    def destinations(self) -> Destinations:
        """Where requests may go: also wherever our own configuration has them sent."""
        return self.guard.destinations.also_allowing(own_hosts(self.default_remote))

    @property
    def serving(self) -> ServingOptions:
        """How routes are served."""
        gateway = EnvoySettings(
            self.gateway_address,
            envoys=self.envoys,
            checks_shared_by=self.checks_shared_by,
            connections_per_model=self.connections_per_model,
            access_log=self.access_log,
            timing=self.timing.gateway,
            installation=self.installation,
            destinations=self.destinations,
            shared_port=self.gateway_port,
        )
        return ServingOptions(
            envoys={Role.GATEWAY: gateway},
            secrets=ServerSecrets(
                self.default_remote, self.version_key or self.node_token.encode(), opt_in=not self.believes_statuses
            ),
            guard=self.guard,
            gateway_service=self.gateway_service,
            controller_class=self.controller_class,
            destinations=self.destinations,
            ask=None if self.believes_statuses else asked_with(self.default_remote),
            read_shadowed=shadowed_with(self.default_remote),
            reserved_ports=self.reserved_ports,
        )


class ControlPlane:
    """An xDS server over a store: `start` it, `run` it, `stop` it. Needs a running event loop from the start.

    `publisher` has the routes, `server` the clients, `loads` what they report, `health` the checks of remote backends
    (None without), and `reports` what all of that comes to.
    """

    def __init__(self, store: ObjectStore, options: ControlPlaneOptions, registry: CollectorRegistry) -> None:
        timing, clock = options.timing, asyncio.get_running_loop().time
        self._subscribers: list[ChangeCallback] = []
        self.loads = Loads(timing.reports)
        self.server = XdsServer(options.node_token, self._client_changed, registry, self.loads, timing.streams)
        self.publisher = Publisher(store, self.server, options.serving, self._routes_changed)
        self.health = self._health_checks(options, registry) if options.health_checks else None
        self.reports = Reports(self.publisher, self.server, self.loads, self.health or UNCHECKED, timing.reports)
        self.reports.ports = tuple(sorted(options.reserved_ports))
        LoadMetrics(registry, self.loads, clock, self.server.carrying)
        registry.register(_EnvoyMetrics(self.reports))
        self.subscribe(self.reports.look_again)

    @property
    def published(self) -> bool:
        """Whether there is anything to serve: a first snapshot."""
        return self.publisher.published

    def subscribe(self, callback: ChangeCallback) -> None:
        """Have `callback` called whenever something changed for a route: what is published, acknowledged or healthy."""
        self._subscribers.append(callback)

    @property
    def token_port(self) -> int:
        """The port where clients show tokens; 0 without one."""
        return self.server.token_port

    async def start(self, address: str, tls: ServerTls | None = None) -> int:
        """Bind an address (port 0: any) and serve; return the port. Raises AddressInUseError and TlsFileError."""
        return await self.server.start(address, tls=tls)

    async def run(self) -> None:
        """Publish what the store has, and check remote backends, until cancelled or until the store ends."""
        work = [asyncio.create_task(self.publisher.run())]
        if self.health:
            work.append(asyncio.create_task(self.health.run()))
        try:
            done, _ = await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in work:
                task.cancel()
            await asyncio.gather(*work, return_exceptions=True)

    async def replace_default_remote(self, default_remote: RemoteBackend) -> None:
        """Serve with another credential of the default backend from now on; its hosts are those of before."""
        await self.publisher.replace_default_remote(default_remote)

    async def stop(self, grace: float) -> None:
        """End every stream after what it was promised, give up after `grace` seconds."""
        await self.server.stop(grace)

    def _health_checks(self, options: ControlPlaneOptions, registry: CollectorRegistry) -> HealthChecks:
        connector = Connector(SystemResolver(), refusal(options.destinations), options.timing.checks)
        inputs = CheckInputs(connector, lambda: datetime.now(UTC), random.random, self.loads)
        return HealthChecks(inputs, CheckMetrics(registry), self._notify)

    def _routes_changed(self, keys: frozenset[RouteKey]) -> None:
        """Pass on what was published: counts and checks follow it before anybody hears of the change."""
        for key in sorted(keys):
            route = self.publisher.route(key)
            if route:
                self.loads.set_route(key, route, (one for one, _ in self.publisher.versions(key)))
            else:
                self.loads.remove_route(key)
            if self.health:
                self.health.set_remotes(key, self.publisher.remotes(key))
        self._notify(keys)

    def _client_changed(self, event: ClientEvent) -> None:
        """Pass on what a client said of resources, to their routes; that it came, counts or went, to all of them."""
        if event.is_debug:
            return  # it counts for no route
        if event.kind == "connected":
            self.publisher.gateway_size.set_connected(len(self.server.carrying()))
        self._notify(self.publisher.routes_with(event.keys) if 0 < len(event.keys) < _MANY else None)

    def _notify(self, keys: frozenset[RouteKey] | None) -> None:
        for callback in self._subscribers:
            callback(keys)


class _EnvoyMetrics(Collector):
    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        connected, programmed = self._reports.envoys()
        yield GaugeMetricFamily("beamlit_xds_envoys_connected", "Envoys that are connected.", value=connected)
        words = "Envoys that have acknowledged everything that is published."
        yield GaugeMetricFamily("beamlit_xds_envoys_programmed", words, value=programmed)
