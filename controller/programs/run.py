"""`beamlit run`: both programs in one process over a folder of YAML."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
from prometheus_client import Gauge

from controller.api.contract.credentials import without_inline_credentials
from controller.api.contract.route import RouteKey, RouteKind
from controller.api.destinations import ANYWHERE, CHECKS_PORT
from controller.api.kubernetes.endpoints import TrustAll
from controller.api.registry import MODEL_DEPLOYMENT, VALIDATION, faults
from controller.api.resources.configuration import Configuration
from controller.api.resources.model import ModelDeployment
from controller.api.schema.errors import FieldError
from controller.api.schema.values import parse
from controller.api.timing import Timing
from controller.decision import SentRequests, Unknown
from controller.frontend.ports import ServicePorts
from controller.gateway.admin import SOCKET, DrainOptions, EnvoyAdmin
from controller.gateway.bootstrap import HostPort, Provision, XdsAddress, bootstrap_for
from controller.gateway.memory import memory_limit
from controller.gateway.process import EnvoyProcess, NoEnvoyError, envoy_binary
from controller.intent.intent import faults_of_model
from controller.observe.index import previous_status
from controller.observe.own_place import this_host
from controller.programs.admin import Admin, process_registry, report_route
from controller.programs.configuration import ConfigurationFileError, read_configuration
from controller.programs.default_backend import follow_secret, with_secret
from controller.programs.lifetime import (
    CannotStartError,
    check_plaintext,
    collect_seldom,
    log_to_stderr,
    note_loaded,
    raise_file_limit,
    run_until_signal,
    start_tasks,
)
from controller.programs.metrics import ControllerMetrics, GatewayMetrics
from controller.programs.reports import LocalLoads, LocalReports
from controller.programs.sources import sources_everywhere
from controller.programs.state import StateDirectory, StateError
from controller.reconcile.controller import Controller
from controller.reconcile.dependencies import Dependencies
from controller.signals.kube_sources import IN_A_FOLDER
from controller.signals.load_reports import NO_LOAD, LoadReports
from controller.store.cache import Cache
from controller.store.directory.store import DirectoryStore
from controller.store.objects import ObjectRef, StoredObject
from xds_server.control_plane import ControlPlane, ControlPlaneOptions
from xds_server.reports import Reports
from xds_server.resources.access_log import AccessLog
from xds_server.stream.server.server import AddressInUseError

logger = logging.getLogger(__name__)

_MODEL = MODEL_DEPLOYMENT.kind
_ENVOY_NODE = "envoy"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    directory: Path
    state: StateDirectory
    insecure_xds: bool
    with_envoy: bool
    xds_address: XdsAddress
    gateway_address: str
    envoys: int
    admin_address: HostPort
    config: Path | None
    remote_checks: bool
    gateway_port: int | None
    access_log: str
    drain_seconds: float
    log_level: str
    log_format: str
    timing: Timing


def _faults_of_model(raw: Mapping[str, Any]) -> Sequence[FieldError]:
    """In a folder a mistake in an annotation is a mistake in the file, and changes nothing either."""
    return faults(ModelDeployment, raw) or faults_of_model(parse(ModelDeployment, raw))


_VALIDATION = {**VALIDATION, (MODEL_DEPLOYMENT.api_version, MODEL_DEPLOYMENT.kind): _faults_of_model}


def serve(options: Options) -> None:
    """Run until SIGINT or SIGTERM. Exits with 1 and a message when it cannot start."""
    log_to_stderr(options.log_level, options.log_format)
    raise_file_limit()
    collect_seldom()
    # What is kept, by this program and by its Envoy, is the user's alone.
    os.umask(0o077)
    at_once = asyncio.Event()
    try:
        asyncio.run(run_until_signal(_programs(options, at_once), at_once))
    except (CannotStartError, ConfigurationFileError, NoEnvoyError, StateError) as error:
        raise click.ClickException(str(error)) from error


@contextlib.asynccontextmanager
async def _programs(options: Options, at_once: asyncio.Event) -> AsyncIterator[tuple[asyncio.Task[None], ...]]:
    """Start everything, yield the tasks that must not end, and stop everything in the order that serves traffic."""
    check_plaintext("--xds-address", options.xds_address, options.insecure_xds, "another program, `beamlit xds-server`")
    registry, timing = process_registry("run"), options.timing
    configuration = read_configuration(options.config) if options.config else Configuration()
    default_remote = with_secret(configuration.default_remote_backend)
    token = options.state.node_token()
    problems = Gauge("beamlit_directory_problems", "Mistakes in the watched files.", registry=registry)
    Gauge("beamlit_xds_servers", "xDS servers that Envoys may be connected to: this one.", registry=registry).set(1)
    state = options.state.objects_file(options.directory)
    try:
        store = DirectoryStore(
            options.directory, state, _VALIDATION, lambda found: problems.set(len(found)), timing.folder
        )
    except ValueError as error:
        raise CannotStartError(f"--state-dir {options.state.path}: {error}") from error
    guard = TrustAll(configuration.destinations(ANYWHERE))
    requests = GatewayMetrics(registry, timing.envoy.answers_within)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(options.state.lock(options.directory))
        if options.with_envoy:
            folder = options.state.envoy_directory(options.directory)
            requests.envoy = await stack.enter_async_context(EnvoyAdmin.connect(folder))

        control_plane = ControlPlane(
            store,
            ControlPlaneOptions(
                node_token=token,
                gateway_address=options.gateway_address,
                envoys=options.envoys,
                checks_shared_by=options.envoys,
                gateway_port=options.gateway_port,
                access_log=AccessLog(options.access_log),
                default_remote=default_remote,
                guard=guard,
                health_checks=options.remote_checks,
                installation=options.state.installation(options.directory),
                timing=timing,
            ),
            registry,
        )
        try:
            xds_port = await control_plane.start(str(options.xds_address))
        except AddressInUseError as error:
            raise CannotStartError(f"--xds-address: {error}") from error
        stack.push_async_callback(control_plane.stop, timing.shutdown)
        models = Cache()
        loads = LocalLoads(control_plane.reports, asyncio.get_running_loop().time, timing.reports)
        admin = Admin(
            not_ready=lambda: None if control_plane.published else "the folder has not been read yet",
            metrics=registry,
            routes=[report_route(lambda: _report(store, models, control_plane.reports, _sent(loads, timing)))],
            refresh=requests.refresh,
            shutdown=timing.shutdown,
        )
        admin_port = await stack.enter_async_context(admin.served("--admin-address", options.admin_address))
        controller = Controller(
            store,
            Dependencies(
                proxies=LocalReports(control_plane.reports),
                clock=_now,
                telemetry=ControllerMetrics(registry),
                default_remote=configuration.default_remote_backend,
                guard=guard,
                gateway_place=this_host(options.gateway_address, options.gateway_port),
                loads=loads,
                sources={**IN_A_FOLDER, **sources_everywhere(configuration, timing.signals, _now)},
                ports=ServicePorts(_own_ports(xds_port, admin_port, CHECKS_PORT, options.gateway_port)),
                limits=timing.writes,
                timing=timing.statuses,
            ),
        )

        def look_again(routes: frozenset[RouteKey] | None) -> None:
            changed = control_plane.publisher.routes() if routes is None else routes
            controller.look_again(frozenset(ObjectRef(*key) for key in changed))

        control_plane.subscribe(look_again)
        control_plane.subscribe(lambda _: note_loaded() if control_plane.published else None)
        control_plane.loads.subscribe(controller.look_at_loads)
        try:
            await stack.enter_async_context(store)
        except OSError as error:
            raise CannotStartError(f"{error.filename or options.directory}: {error.strerror or error}") from error
        following = follow_secret(
            configuration.default_remote_backend,
            control_plane.replace_default_remote,
            timing.files_looked_at_every,
            default_remote,
        )
        tasks = start_tasks(stack, controller.run(), control_plane.run(), _mirror(store, models), following)
        if options.with_envoy:
            # On its own, so that it is the first to stop: while it drains, the others still serve it.
            tasks += start_tasks(stack, _envoy(options, token, xds_port, at_once).run())
        logger.info(
            "serving",
            extra={
                "directory": options.directory,
                "xds": options.xds_address.at(xds_port),
                "admin": HostPort(options.admin_address.host, admin_port),
            },
        )
        yield tasks


def _own_ports(*ports: int | None) -> frozenset[int]:
    """Return the ports that no model is given: where this program and its Envoy listen for something else."""
    return frozenset(port for port in ports if port is not None)


def _report(
    store: DirectoryStore,
    models: Cache,
    reports: Reports,
    sent: Callable[[StoredObject], SentRequests | Unknown],
) -> Mapping[str, Any]:
    """Tell of every model, as the store has it; and which file defines it, what Envoys have of it and sent for it."""
    known = sorted(models.objects(_MODEL).items())
    traffic = ((ref, sent(one)) for ref, one in known)
    return {
        "items": [without_inline_credentials(one.raw) for _, one in known],
        "problems": [str(problem) for problem in store.problems],
        "files": {f"{ref.namespace}/{ref.name}": store.defined_at(ref) for ref, _ in known},
        "envoys": [
            reports.known(RouteKey(RouteKind(ref.kind), ref.namespace, ref.name)).model_dump(mode="json", by_alias=True)
            for ref, _ in known
        ],
        "traffic": {
            f"{ref.namespace}/{ref.name}": asdict(one) for ref, one in traffic if isinstance(one, SentRequests)
        },
    }


def _sent(loads: LoadReports, timing: Timing) -> Callable[[StoredObject], SentRequests | Unknown]:
    """Make the question how many requests Envoys sent where, since they had the time to follow the split."""
    # The status has whole seconds.
    followed = timedelta(seconds=timing.statuses.split_followed_within + 1)

    def sent(stored: StoredObject) -> SentRequests | Unknown:
        status = previous_status(stored)
        if status.route is None or status.split is None:
            return NO_LOAD
        remotes = [one.name for one in status.route.remotes]
        return loads.traffic(stored.ref, remotes, status.split.since + followed, _now())

    return sent


def _now() -> datetime:
    return datetime.now(UTC)


def _envoy(options: Options, token: str, xds_port: int, at_once: asyncio.Event) -> EnvoyProcess:
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    xds = options.xds_address.at(xds_port)
    if isinstance(xds, HostPort):
        xds = HostPort(anywhere.get(xds.host, xds.host), xds_port)
    bootstrap = bootstrap_for(_ENVOY_NODE, token, xds, SOCKET, Provision(memory_limit()))
    # Nobody takes clients elsewhere meanwhile, so nothing is gained by serving new ones.
    draining = DrainOptions(delay=0, seconds=options.drain_seconds, at_once=at_once)
    directory, timing = options.state.envoy_directory(options.directory), options.timing.envoy
    return EnvoyProcess(envoy_binary(), directory, bootstrap, draining, timing)


async def _mirror(store: DirectoryStore, models: Cache) -> None:
    async for batch in store.watch([_MODEL]):
        models.apply(batch)
