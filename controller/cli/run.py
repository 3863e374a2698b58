"""`beamlit run`: both programs in one process over a folder of YAML."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from controller.api.base import parse
from controller.api.configuration import Configuration
from controller.api.errors import FieldError
from controller.api.kinds import VALIDATION, faults
from controller.api.model import API_VERSION, KIND, ModelDeployment
from controller.cli.admin import Admin
from controller.cli.bootstrap import HostPort, bootstrap_for
from controller.cli.configuration import ConfigurationError, read_configuration
from controller.cli.envoy_process import EnvoyProcess, NoEnvoyError, envoy_binary
from controller.cli.logs import log_to_stderr
from controller.cli.metrics import DecisionMetrics
from controller.cli.reports import LocalReports
from controller.cli.state import State, StateError
from controller.decision import terms_for
from controller.reconcile.controller import Controller, Surroundings
from controller.store.cache import Cache
from controller.store.directory.store import DirectoryStore
from controller.store.objects import ObjectRef
from xds_server.delivery import Delivery
from xds_server.resources.model import Gateway
from xds_server.snapshot.snapshot import ResourceKey
from xds_server.stream.clients import ClientEvent
from xds_server.stream.server import AddressInUseError, XdsServer

logger = logging.getLogger(__name__)

_MODEL = "ModelDeployment"
_ENVOY_NODE = "envoy"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

    directory: Path
    state: State
    with_envoy: bool
    xds_address: HostPort
    admin_address: HostPort
    config: Path | None
    log_level: str


def _faults_of_model(raw: Mapping[str, Any]) -> Sequence[FieldError]:
    """In a folder a mistake in an annotation is a mistake in the file, and changes nothing either."""
    return faults(ModelDeployment, raw) or terms_for(parse(ModelDeployment, raw), can_leave=True)[1]


_VALIDATION = {**VALIDATION, (API_VERSION, KIND): _faults_of_model}


class CannotStartError(Exception):
    """Something that the program needs cannot be had; the message says what and how to change it."""


def serve(options: Options) -> None:
    """Run until SIGINT or SIGTERM. Exits with 1 and a message when it cannot start."""
    log_to_stderr(options.log_level)
    # What is kept, by this program and by its Envoy, is the user's alone.
    os.umask(0o077)
    try:
        asyncio.run(_until_signalled(options))
    except (CannotStartError, ConfigurationError, NoEnvoyError, StateError) as error:
        raise click.ClickException(str(error)) from error


async def _until_signalled(options: Options) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with _programs(options) as running:
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait((stopping, *running), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        for task in running:
            if task.done():
                task.result()
        logger.info("stopping")


@contextlib.asynccontextmanager
async def _programs(options: Options) -> AsyncIterator[tuple[asyncio.Task[None], ...]]:
    """Start everything, yield the tasks that must not end, and stop everything in the order that serves traffic."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    configuration = read_configuration(options.config) if options.config else Configuration()
    token = options.state.node_token()
    problems = Gauge("beamlit_directory_problems", "Mistakes in the watched files.", registry=registry)
    state = options.state.objects_of(options.directory)
    try:
        store = DirectoryStore(options.directory, state, _VALIDATION, lambda found: problems.set(len(found)))
    except ValueError as error:
        raise CannotStartError(f"--state-dir {options.state.directory}: {error}") from error
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(options.state.held(options.directory))

        def look_again(event: ClientEvent) -> None:
            """Look at the models that an Envoy said something about; at all of them when one comes or goes."""
            controller.look_again(_models(delivery, event.keys) if event.keys else frozenset(models.objects(_MODEL)))

        server = XdsServer(str(options.xds_address), token, look_again, registry)
        try:
            xds_port = await server.start()
        except AddressInUseError as error:
            raise CannotStartError(f"--xds-address: {error}") from error
        stack.push_async_callback(server.stop, 1.0)
        models = Cache()
        delivery = Delivery(store, server, Gateway())
        controller = Controller(
            store,
            Surroundings(
                proxies=LocalReports(delivery, server),
                clock=lambda: datetime.now(UTC),
                observer=DecisionMetrics(registry).observe,
                default_remote=configuration.default_remote_backend,
            ),
        )
        admin = Admin(
            report=lambda: {
                "items": [one.raw for _, one in sorted(models.objects(_MODEL).items())],
                "problems": [str(problem) for problem in store.problems],
            },
            not_ready=lambda: None if delivery.published else "the folder has not been read yet",
            metrics=registry,
        )
        try:
            admin_port = await stack.enter_async_context(admin.served(options.admin_address))
        except OSError as error:
            raise CannotStartError(f"--admin-address {options.admin_address}: {error.strerror or error}") from error
        try:
            await stack.enter_async_context(store)
        except OSError as error:
            raise CannotStartError(f"{error.filename or options.directory}: {error.strerror or error}") from error
        work = [controller.run(), delivery.run(), _mirror(store, models)]
        if options.with_envoy:
            work.append(_envoy(options, token, xds_port).run())
        tasks = tuple(asyncio.create_task(one) for one in work)
        stack.push_async_callback(_cancelled, tasks)
        logger.info(
            "serving",
            extra={
                "directory": options.directory,
                "xds": HostPort(options.xds_address.host, xds_port),
                "admin": HostPort(options.admin_address.host, admin_port),
            },
        )
        yield tasks


def _envoy(options: Options, token: str, xds_port: int) -> EnvoyProcess:
    anywhere = {"0.0.0.0": "127.0.0.1", "::": "::1"}
    host = options.xds_address.host
    bootstrap = bootstrap_for(_ENVOY_NODE, token, HostPort(anywhere.get(host, host), xds_port), Path("admin.sock"))
    return EnvoyProcess(envoy_binary(), options.state.envoy_of(options.directory), bootstrap)


async def _mirror(store: DirectoryStore, models: Cache) -> None:
    async for batch in store.watch([_MODEL]):
        models.apply(batch)


async def _cancelled(tasks: Iterable[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _models(delivery: Delivery, keys: frozenset[ResourceKey]) -> frozenset[ObjectRef]:
    return frozenset(ObjectRef(_MODEL, *model) for model in delivery.models_with(keys))
