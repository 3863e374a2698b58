"""`beamlit xds-server`: the routes of a cluster, told to its Envoys."""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import logging
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from controller.api.contract.installation import installation_of
from controller.api.destinations import OUTSIDE
from controller.api.kubernetes.endpoints import PodsOnly
from controller.api.registry import ENDPOINT_SLICE
from controller.api.timing import StreamTiming, Timing
from controller.frontend.ports import AllocatedPorts
from controller.gateway.bootstrap import HostPort, XdsAddress
from controller.programs.admin import Admin, process_registry
from controller.programs.certificate_expiry import CertificateExpiry
from controller.programs.configuration import ConfigurationFileError, load_configuration, ports_of_programs
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
from controller.programs.metrics import StoreMetrics
from controller.programs.refused_clients import follow_refused, refuse_from
from controller.programs.reports import refused_reports, report_routes, reports_over_tls
from controller.programs.state import NodeTokenError, read_node_token
from controller.programs.token_reviews import AUDIENCE, reviewed_by
from controller.store.kube.client import KubeClient
from controller.store.kube.store import KubeStore
from controller.store.protocol import ConfigurationError
from xds_server.control_plane import ControlPlane, ControlPlaneOptions
from xds_server.resources.access_log import AccessLog
from xds_server.routes.index import KINDS, STATUS_FIELDS
from xds_server.stream.callers import Callers
from xds_server.stream.identity import ClientTable, parse_binding
from xds_server.stream.server.server import AddressInUseError
from xds_server.stream.tls import ServerFiles, ServerTls, TlsFileError
from xds_server.stream.tokens import ReviewedTokens, TokenLimits

logger = logging.getLogger(__name__)

_INSTEAD = "--tls-cert, --tls-key and --client-ca (`beamlit certs` makes such files)"


@dataclass(frozen=True, slots=True)
class XdsServerTls:
    """How clients are known: by certificates, with these files and bindings (`NAME=GRANT`), or not at all.

    `token_address` is where they show tokens of ServiceAccounts for `token_audience` instead (None: nowhere). `refused`
    is the file that names those that are refused all the same. `insecure` has it serve without TLS where others than
    this host come.
    """

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None
    clients: tuple[str, ...] = ()
    insecure: bool = False
    token_address: HostPort | None = None
    token_audience: str = AUDIENCE
    refused: Path | None = None

    @property
    def is_on(self) -> bool:
        """Whether there is TLS."""
        return self.certificate is not None

    def server(self, client: KubeClient, timing: StreamTiming) -> ServerTls | None:
        """Return what the server needs, None without TLS; `client` says whose tokens are. Raises CannotStartError."""
        if not (self.certificate and self.key and self.client_ca):
            return None
        try:
            table = ClientTable.of(map(parse_binding, self.clients))
        except ValueError as error:
            raise CannotStartError(f"--client: {error}") from error
        tokens = None
        if table.accounts and not self.token_address:
            raise CannotStartError(f"--client {min(table.accounts)}: tokens are taken with --token-address alone")
        if self.token_address:
            audience = self.token_audience
            limits = TokenLimits(rest=timing.token_rest)
            tokens = ReviewedTokens(reviewed_by(client, audience), audience, table.accounts.__contains__, limits)
        callers = Callers(table, tokens)
        if self.refused:
            refuse_from(self.refused, callers)
        files = ServerFiles(self.certificate, self.key, self.client_ca)
        return ServerTls(files, callers, str(self.token_address or ""))


@dataclass(frozen=True, slots=True)
class XdsOptions:
    """What the command line says; `overrides` go before the configuration file."""

    config: Path | None
    overrides: Mapping[str, object]
    kubeconfig: Path | None
    context: str | None
    xds_address: XdsAddress
    admin_address: HostPort
    reports_address: HostPort
    tls: XdsServerTls
    gateway_address: str
    gateway_port: int | None
    gateway_service: tuple[str, str] | None
    checks_shared_by: int
    connections_per_model: int
    installation: str | None
    access_log: str
    node_token_file: Path | None
    remote_checks: bool
    log_level: str
    log_format: str
    timing: Timing

    @property
    def addresses(self) -> tuple[HostPort, ...]:
        """Where this program listens that has a port."""
        every = (self.xds_address, self.admin_address, self.reports_address, self.tls.token_address)
        return tuple(one for one in every if isinstance(one, HostPort))


def serve(options: XdsOptions) -> None:
    """Run until SIGINT or SIGTERM. Exits with 1 and a message when it cannot start."""
    log_to_stderr(options.log_level, options.log_format)
    raise_file_limit()
    collect_seldom()
    try:
        asyncio.run(run_until_signal(_programs(options)))
    except (CannotStartError, ConfigurationFileError, ConfigurationError, NodeTokenError) as error:
        raise click.ClickException(str(error)) from error


@contextlib.asynccontextmanager
async def _programs(options: XdsOptions) -> AsyncIterator[tuple[asyncio.Task[None], ...]]:
    """Start everything, yield the tasks that must not end, and stop everything in the order that serves traffic."""
    configuration = load_configuration(options.config, options.overrides)
    registry, timing = process_registry("xds-server"), options.timing
    if not options.tls.is_on:
        check_plaintext("--xds-address", options.xds_address, options.tls.insecure, _INSTEAD)
    token = _node_token(options)
    default_remote = with_secret(configuration.default_remote_backend)
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(
            KubeClient.from_environment(options.kubeconfig, options.context, timing.kube)
        )
        tls = options.tls.server(client, timing.streams)
        service = options.gateway_service or configuration.gateway
        also = [(ENDPOINT_SLICE.kind, service[0])] if service else []
        store = KubeStore(client, KINDS, configuration.namespaces, also=also, status_fields=STATUS_FIELDS)
        StoreMetrics(registry, client, store)
        CertificateExpiry(registry, "--tls-cert", options.tls.certificate if tls else None)

        control_plane = ControlPlane(
            store,
            ControlPlaneOptions(
                node_token=token,
                version_key=version_key(token, options.tls.key if tls else None),
                gateway_address=options.gateway_address,
                gateway_port=options.gateway_port,
                gateway_service=service,
                checks_shared_by=options.checks_shared_by,
                connections_per_model=options.connections_per_model,
                access_log=AccessLog(options.access_log),
                default_remote=default_remote,
                guard=PodsOnly(configuration.destinations(OUTSIDE)),
                controller_class=configuration.controller_class,
                health_checks=options.remote_checks,
                believes_statuses=False,
                reserved_ports=ports_of_programs(configuration, options.addresses) | {options.gateway_port or 0},
                # What all replicas are told alike, and needs no rights: docs/adr/0026.
                installation=options.installation
                or installation_of(client.cluster, "/".join(service or ()), ",".join(sorted(configuration.namespaces))),
                timing=timing,
            ),
            registry,
        )
        control_plane.subscribe(lambda _: note_loaded() if control_plane.published else None)
        try:
            xds_port = await control_plane.start(str(options.xds_address), tls)
        except AddressInUseError as error:
            option = "--xds-address, --token-address" if options.tls.token_address else "--xds-address"
            raise CannotStartError(f"{option}: {error}") from error
        except TlsFileError as error:
            raise CannotStartError(f"--tls-cert, --tls-key, --client-ca: {error}") from error
        stack.push_async_callback(control_plane.stop, timing.shutdown)
        reports = report_routes(control_plane.reports, timing.reports)
        open_to_others = not (options.admin_address.is_loopback or options.tls.insecure)
        admin = Admin(
            not_ready=lambda: store.not_ready() or (None if control_plane.published else "nothing was published yet"),
            metrics=registry,
            routes=refused_reports() if tls or open_to_others else reports,
            shutdown=timing.shutdown,
        )
        admin_port = await stack.enter_async_context(admin.served("--admin-address", options.admin_address))
        where = {}
        if tls:
            served = reports_over_tls(options.reports_address, tls, reports, timing.shutdown)
            where["reports"] = HostPort(options.reports_address.host, await stack.enter_async_context(served))
            if options.tls.token_address:
                where["tokens"] = options.tls.token_address.at(control_plane.token_port)
        await stack.enter_async_context(store)
        following = follow_secret(
            configuration.default_remote_backend,
            control_plane.replace_default_remote,
            timing.files_looked_at_every,
            default_remote,
        )
        refusing = follow_refused(options.tls.refused, tls.callers if tls else None, timing.files_looked_at_every)
        tasks = start_tasks(stack, control_plane.run(), following, refusing)
        logger.info(
            "serving",
            extra={
                "namespaces": ",".join(configuration.namespaces) or "all",
                "xds": options.xds_address.at(xds_port),
                "admin": HostPort(options.admin_address.host, admin_port),
                **where,
            },
        )
        yield tasks


def check_shared_port(port: int) -> int:
    """Return a port on which Envoys may listen for all models. Raises ValueError for one that a model may be given."""
    models = AllocatedPorts()
    if models.first <= port <= models.last:
        raise ValueError(f"{port} is one of the ports for models, {models.first} to {models.last}")
    return port


def version_key(token: str, tls_key: Path | None) -> bytes:
    """Return the key of the versions of secrets, which anybody may see who sees an Envoy: nobody shall guess by them.

    It is the node token or, without one, made of the private key of the server: replicas that have the same one build
    the same versions, and another key costs no more than secrets that are sent once more. Raises CannotStartError.
    """
    if token or tls_key is None:
        return token.encode()
    try:
        return hmac.digest(tls_key.read_bytes(), b"versions of secrets", "sha256")
    except OSError as error:
        raise CannotStartError(f"--tls-key: {error}") from error


def _node_token(options: XdsOptions) -> str:
    """Read the token of the Envoys; empty when there is none: without TLS no Envoy is given secrets then."""
    if options.node_token_file is not None:
        return read_node_token(options.node_token_file)
    if options.tls.certificate is None:
        because = "neither --tls-cert nor --node-token-file is set"
        logger.warning("no Envoy will be given secrets", extra={"because": because})
    return ""
