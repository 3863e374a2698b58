"""`beamlit controller`: one of its replicas decides for the models of a cluster, the others stand by."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import click
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from controller.api.destinations import OUTSIDE
from controller.api.kubernetes.endpoints import PodsOnly
from controller.api.registry import ENDPOINT_SLICE, SERVICE
from controller.api.resources.configuration import Configuration
from controller.api.timing import Timing
from controller.frontend.ports import AllocatedPorts
from controller.gateway.bootstrap import HostPort
from controller.gateway.client_tls import ClientTls
from controller.observe.feed import ADMIN_PORT, REPORTS_PORT, Feed, Replicas, ReportsTls, ServerWatch
from controller.observe.fronting import Problem, TakeoverRules
from controller.observe.index import KINDS
from controller.observe.own_place import GatewayPlace
from controller.observe.proxies import Fleet
from controller.programs.admin import Admin, process_registry
from controller.programs.certificate_expiry import CertificateExpiry
from controller.programs.configuration import ConfigurationFileError, load_configuration, ports_of_programs
from controller.programs.lifetime import (
    CannotStartError,
    log_to_stderr,
    raise_file_limit,
    run_until_signal,
    start_tasks,
)
from controller.programs.metrics import ControllerMetrics, ServiceMetrics, StoreMetrics
from controller.programs.sources import sources_everywhere
from controller.reconcile.controller import Controller
from controller.reconcile.dependencies import Dependencies
from controller.reconcile.services import ServiceLoop, ServiceLoopDependencies
from controller.runtime.election import Clocks, LeaderElection, LeaderElector, NoElection
from controller.runtime.events import EventRecorder
from controller.runtime.fencing import Fenced, Leadership
from controller.signals.kube_sources import kube_sources
from controller.store.kube.client import KubeClient
from controller.store.kube.objects import KubeObjects
from controller.store.kube.store import KubeStore
from controller.store.lease import StoredLease
from controller.store.objects import ObjectRef
from controller.store.protocol import ConfigurationError, ObjectStore

logger = logging.getLogger(__name__)

_LEASE = "beamlit-controller"


@dataclass(frozen=True, slots=True)
class ControllerOptions:
    """What the command line says; `overrides` go before the configuration file."""

    config: Path | None
    overrides: Mapping[str, object]
    kubeconfig: Path | None
    context: str | None
    lease: tuple[str, str] | None
    gateway_service: tuple[str, str] | None
    xds_service: tuple[str, str] | None
    xds_replicas: tuple[HostPort, ...]
    tls: ClientTls | None
    log_level: str
    log_format: str
    timing: Timing


def serve(options: ControllerOptions) -> None:
    """Run until SIGINT or SIGTERM. Exits with 1 and a message when it cannot start."""
    log_to_stderr(options.log_level, options.log_format)
    raise_file_limit()
    try:
        asyncio.run(run_until_signal(_programs(options)))
    except (CannotStartError, ConfigurationFileError, ConfigurationError) as error:
        raise click.ClickException(str(error)) from error


@contextlib.asynccontextmanager
async def _programs(options: ControllerOptions) -> AsyncIterator[tuple[asyncio.Task[None], ...]]:
    """Start everything, yield the tasks that must not end, and stop everything: the lease is given back last."""
    configuration, timing = load_configuration(options.config, options.overrides), options.timing
    for words in (*configuration.keys_without_effect(), *configuration.exposed_credentials()):
        logger.warning("configuration", extra={"because": words})
    registry, identity = process_registry("controller"), f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            KubeClient.from_environment(options.kubeconfig, options.context, timing.kube)
        )
        gateway = options.gateway_service or configuration.gateway
        # Where the gateways are, also in a namespace that is not watched.
        also = [(ENDPOINT_SLICE.kind, gateway[0])] if gateway else []
        store = KubeStore(client, KINDS, configuration.namespaces, also=also)
        StoreMetrics(registry, client, store)
        CertificateExpiry(registry, "--xds-cert", options.tls.certificate if options.tls else None)
        objects = KubeObjects(client)
        election: LeaderElection = NoElection()
        writer = identity
        if configuration.enable_leader_election:
            namespace, name = options.lease or (client.namespace, _LEASE)
            writer = f"{namespace}/{name}"
            election = LeaderElector(StoredLease(objects, namespace, name), identity, _clocks(), timing.lease)
        admin = Admin(
            not_ready=lambda: store.not_ready() or election.not_ready(), metrics=registry, shutdown=timing.shutdown
        )
        addresses = await _served(stack, admin, configuration)
        await stack.enter_async_context(store)
        events = EventRecorder(objects, identity, _now, timing.events)
        _register_metrics(registry, election, events)
        fleet, replicas = Fleet(timing.reports), asyncio.Queue[Replicas]()
        metrics = ControllerMetrics(registry)
        problems: dict[ObjectRef, Problem] = {}
        takeover = TakeoverRules(
            gateway=ObjectRef(SERVICE.kind, *gateway) if gateway else None,
            controller_class=configuration.controller_class,
            controller=writer if configuration.enable_leader_election else "",
            problems=problems.get,
            timing=timing.takeover,
        )
        deciding = _Deciding(
            store,
            metrics,
            Dependencies(
                proxies=fleet,
                clock=_now,
                telemetry=metrics,
                default_remote=configuration.default_remote_backend,
                events=events,
                guard=PodsOnly(configuration.destinations(OUTSIDE)),
                takeover=takeover,
                gateway_place=GatewayPlace(service=gateway),
                expects_workloads=True,
                needs_consent=True,
                controller=writer,
                controller_class=configuration.controller_class,
                ports=AllocatedPorts(
                    per_namespace=configuration.models_per_namespace,
                    reserved=ports_of_programs(configuration, addresses.values()),
                ),
                any_replica=store,
                loads=fleet.loads,
                sources={
                    **kube_sources(client, timing.signals, _now),
                    **sources_everywhere(configuration, timing.signals, _now),
                },
                limits=timing.writes,
                timing=timing.statuses,
            ),
        )
        services = ServiceLoop(
            store,
            takeover,
            ServiceLoopDependencies(
                clock=_now,
                leads=lambda: election.leading,
                look_again=deciding.look_again,
                problems=problems,
                controller_class=configuration.controller_class,
            ),
        )
        ServiceMetrics(registry, services.counts)
        registry.register(_YieldedModels(deciding))
        # The recorder is stopped last: what the last decisions tell is written, too.
        start_tasks(stack, events.run())
        feed = Feed(fleet, deciding, timing.reports, _nowhere(options), _reports_tls(options))
        registry.register(_XdsServers(feed))
        work = [election.run(deciding.decide), feed.run(replicas), services.run()]
        if options.xds_service:
            watched = KubeStore(client, [ENDPOINT_SLICE.kind], [options.xds_service[0]])
            await stack.enter_async_context(watched)
            always = frozenset(map(str, options.xds_replicas))
            work.append(ServerWatch(watched, options.xds_service, always, _reports_port(options)).run(replicas))
        else:
            replicas.put_nowait(dict.fromkeys(map(str, options.xds_replicas), True))
        tasks = start_tasks(stack, *work)
        logger.info("serving", extra={"namespaces": ",".join(configuration.namespaces) or "all", **addresses})
        yield tasks


def _nowhere(options: ControllerOptions) -> str:
    """Say what is wrong when no xDS server is found."""
    if not options.xds_service:
        return "neither --xds-service nor --xds-replica says where the xDS servers are"
    service = "/".join(options.xds_service)
    return f"the Service {service} (--xds-service) has no endpoint with a port named {_reports_port(options)}"


def _reports_port(options: ControllerOptions) -> str:
    return REPORTS_PORT if options.tls else ADMIN_PORT


def _reports_tls(options: ControllerOptions) -> ReportsTls | None:
    """Say how the reports are read: replicas are known by the name of their Service, unless another one is said."""
    tls = options.tls
    if tls is None:
        return None
    namespace, name = options.xds_service or ("", "")
    server_name = tls.server_name or (f"{name}.{namespace}.svc" if name else "")
    return ReportsTls(tls.context, server_name, tls.headers)


class _Deciding:
    """The controller while this replica leads, none otherwise."""

    def __init__(self, store: ObjectStore, metrics: ControllerMetrics, dependencies: Dependencies) -> None:
        self._store = store
        self._metrics = metrics
        self._dependencies = dependencies
        self._controller: Controller | None = None

    async def decide(self, leadership: Leadership) -> None:
        """Decide while leading."""
        self._controller = Controller(Fenced(self._store, leadership), self._dependencies)
        try:
            await self._controller.run()
        finally:
            self._controller = None
            self._metrics.stand_by()

    @property
    def yielded(self) -> int:
        """How many models are left to another controller."""
        return self._controller.yielded if self._controller else 0

    def look_again(self, models: frozenset[ObjectRef] | None) -> None:
        """Something that is not in the store changed for these models; None: for all of them."""
        if self._controller:
            self._controller.look_again(models)

    def look_at_loads(self) -> None:
        """Envoys reported load."""
        if self._controller:
            self._controller.look_at_loads()


class _YieldedModels(Collector):
    def __init__(self, deciding: _Deciding) -> None:
        self._deciding = deciding

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        words = "Models that another controller writes, too."
        yield GaugeMetricFamily("beamlit_models_yielded", words, value=self._deciding.yielded)


class _XdsServers(Collector):
    def __init__(self, feed: Feed) -> None:
        self._feed = feed

    def collect(self) -> Iterable[Metric]:
        """See `Collector`."""
        words = "Replicas of the xDS server that Envoys may be connected to."
        yield GaugeMetricFamily("beamlit_xds_servers", words, value=self._feed.replicas)


def _register_metrics(registry: CollectorRegistry, election: LeaderElection, events: EventRecorder) -> None:
    leads = Gauge("beamlit_leader", "1 while this replica decides, else 0.", registry=registry)
    leads.set_function(lambda: float(election.leading))
    dropped = Gauge("beamlit_events_dropped", "Kubernetes events left out: too many at once.", registry=registry)
    dropped.set_function(lambda: float(events.dropped))


def _clocks() -> Clocks:
    # Where there is a clock that also runs while the machine sleeps, it is the one: asleep is when leaders are deposed.
    steady = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
    return Clocks(steady=lambda: time.clock_gettime(steady), utc=_now)


def _now() -> datetime:
    return datetime.now(UTC)


async def _served(
    stack: contextlib.AsyncExitStack, admin: Admin, configuration: Configuration
) -> Mapping[str, HostPort]:
    """Serve metrics and health where the configuration says: at two addresses, at one, or at none."""
    served: dict[str, HostPort] = {}
    wanted = {"--metrics-addr": configuration.metrics_addr, "--probe-addr": configuration.probe_addr}
    for option, text in wanted.items():
        if text in ("", "0") or text in list(wanted.values())[: len(served)]:
            continue
        address = _address(option, text)
        port = await stack.enter_async_context(admin.served(option, address))
        served[option.removeprefix("--").removesuffix("-addr")] = HostPort(address.host, port)
    return served


def _address(option: str, text: str) -> HostPort:
    """Parse `:8080`, which means every address of the host, or HOST:PORT."""
    try:
        return HostPort.parse(f"0.0.0.0{text}" if text.startswith(":") else text)
    except ValueError as error:
        raise CannotStartError(f"{option}: {error}") from error
