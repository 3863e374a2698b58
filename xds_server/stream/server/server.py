"""The xDS server on its port: discovery services, reflection and health around the task that holds all sessions."""

from __future__ import annotations

import asyncio
import resource
import uuid
from collections.abc import Collection, Coroutine, Iterable
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from controller.api.timing import REAL, StreamTiming
from xds_server.snapshot.scope import GATEWAY, Scope
from xds_server.snapshot.snapshot import CLUSTER, ResourceKey, Snapshot
from xds_server.stream.admission import ClientAdmission
from xds_server.stream.limits import LONGEST_MESSAGE
from xds_server.stream.load_reporting.streams import LoadReceiver, LoadStreams, Unobserved
from xds_server.stream.server import anybody, reflection, services
from xds_server.stream.server.clients import ClientState, Holding, Progress
from xds_server.stream.server.connections import ConnectionBounds, Peer, keep_room
from xds_server.stream.server.gate import MethodGate
from xds_server.stream.server.sessions import Sessions
from xds_server.stream.server.telemetry import ClientTelemetry, OnClientEvent
from xds_server.stream.server.unix_socket import SocketTakenError, socket_file
from xds_server.stream.tls import ServerTls

OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the same port shall fail, not share it
    ("grpc.max_receive_message_length", LONGEST_MESSAGE),
    ("grpc.max_send_message_length", -1),
    ("grpc.keepalive_permit_without_calls", 1),
    # Envoy pings an idle connection every few seconds; by default that counts as abuse, and ends it.
    ("grpc.http2.min_ping_interval_without_data_ms", 1_000),
    ("grpc.http2.max_ping_strikes", 0),
    # To measure how much a connection could take costs a PING for each burst of requests, and those are small.
    ("grpc.http2.bdp_probe", 0),
    ("grpc.max_concurrent_streams", 100),  # on one connection: an Envoy has two
)
MOST_CONNECTIONS = 10_000
_FILES_OF_ITS_OWN = 256
"""For the API server, the store, checks of remote backends and who reads metrics: connections leave room for them."""

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


class AddressInUseError(Exception):
    """The address cannot be bound; the message names it."""


class XdsServer:
    """Serves the last published snapshot of each scope to any number of Envoys and readers, and hears of their load.

    All methods are called from one event loop. `observer` is called there too, whenever a client comes, goes, ACKs,
    NACKs or is sent something overdue; it must not wait. Without TLS a client whose node metadata has `node_token` sees
    secrets, and where there is a token only such clients count for anything.
    """

    def __init__(
        self,
        node_token: str,
        observer: OnClientEvent,
        registry: CollectorRegistry | None = None,
        loads: LoadReceiver | None = None,
        timing: StreamTiming = REAL.streams,
    ) -> None:
        self._timing = timing
        self._identifier = f"beamlit-{uuid.uuid4().hex[:8]}"
        telemetry = ClientTelemetry(observer, registry or CollectorRegistry())
        self._admission = ClientAdmission(node_token)
        self._sessions = Sessions(self._identifier, self._admission, telemetry, timing)
        self._loads = LoadStreams(loads or Unobserved(), self._admission, timing)
        self._health = anybody.BoundedHealth(self._admission)
        self._server: grpc.aio.Server | None = None
        self.token_port = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._published = False

    async def start(self, address: str, connections: int | None = None, tls: ServerTls | None = None) -> int:
        """Bind an address (port 0: any; or `unix:/PATH`) and serve; return the port.

        Raises AddressInUseError and TlsFileError.

        More than so many connections are closed at once: by default, what the files of this process allow. With `tls`
        a client is who its certificate says; its token counts for nothing.
        """
        described = await asyncio.to_thread(reflection.described)
        gate = [MethodGate(self._admission)] if tls else []
        # gRPC counts them for each address that it listens at.
        most = connections or _most_connections(2 if tls and tls.token_address else 1)
        options = (*OPTIONS, *_options(self._timing, most))
        if tls:
            options = (*options, *_ages(self._timing))
        server = grpc.aio.server(interceptors=gate, options=options)
        server.add_generic_rpc_handlers(services.handlers(self._sessions, self._loads, self._identifier))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*services.NAMES, health.SERVICE_NAME)
        server.add_generic_rpc_handlers(
            reflection.handlers(anybody.BoundedReflection(names, described, self._admission))
        )
        try:
            port = _listen(server, address, tls)
            if tls and tls.token_address:
                address = tls.token_address
                self.token_port = server.add_secure_port(address, tls.credentials(certificates=False))
        except RuntimeError as error:
            raise AddressInUseError(f"cannot listen on {address}: it is taken or not of this host") from error
        except SocketTakenError as error:
            raise AddressInUseError(f"cannot listen on {address}: {error}") from error
        if tls is not None:
            self._admission.require(tls.callers)
        self._server = server
        await self._set_health(SERVING if self._published else NOT_SERVING)
        await server.start()
        self._spawn(self._sessions.run())
        for one in {port, self.token_port} - {0}:
            self._spawn(keep_room(ConnectionBounds(one, most), self._used_connections))
        return port

    def publish(self, snapshot: Snapshot, changed: frozenset[ResourceKey], scope: Scope = GATEWAY) -> None:
        """Serve `snapshot` to a scope; `changed` are all keys that differ from the one before, removed ones too.

        The first call begins service for every scope; a scope that nothing was published for has no resources. So
        whoever serves several publishes all of them the first time, without an `await` in between: they arrive
        together.
        """
        self._sessions.publish(snapshot, changed, scope)
        first, self._published = not self._published, True
        if first or any(key.type_url == CLUSTER for key in changed):
            self._loads.publish(frozenset(snapshot.by_type.get(CLUSTER, {})), scope)
        if first and self._server is not None:
            self._spawn(self._set_health(SERVING))

    def clients(self) -> tuple[ClientState, ...]:
        """Return every connected client."""
        return self._sessions.streams.clients()

    def carrying(self) -> Collection[str]:
        """Return the node ids of the gateway's Envoys, which carry traffic."""
        return self._sessions.streams.carrying()

    def refused(self) -> str:
        """Say what is wrong with a client that comes and does not count; empty without one."""
        return self._sessions.streams.refused()

    def progress(self, scope: Scope = GATEWAY) -> Progress:
        """Return how far the clients of a scope are with what is published for it."""
        return self._sessions.progress(scope)

    def holds(
        self, keys_and_versions: Iterable[tuple[ResourceKey, str]], scope: Scope = GATEWAY
    ) -> tuple[Holding, ...]:
        """Return for each client of a scope which of these resource versions it has not ACKed."""
        return self._sessions.streams.holds(keys_and_versions, scope)

    async def stop(self, grace: float) -> None:
        """Drain: report NOT_SERVING, end every stream after what it was promised, give up after `grace` seconds."""
        await self._set_health(NOT_SERVING)
        self._sessions.streams.end_all()
        self._loads.end_all()
        if self._server is not None:
            await self._server.stop(grace)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _used_connections(self) -> Collection[Peer]:
        """Say from where there is a stream, of discovery or of load reports."""
        return {Peer.of(peer) for peer in (*self._sessions.streams.peers(), *self._loads.peers())}

    async def _set_health(self, status: int) -> None:
        for service in ("", *services.NAMES):
            await self._health.set(service, status)

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _listen(server: grpc.aio.Server, address: str, tls: ServerTls | None) -> int:
    """Bind an address, with TLS or without.

    Raises RuntimeError when it cannot be bound, SocketTakenError when the socket is another's, and TlsFileError.
    """
    scheme, _, path = address.partition(":")
    if scheme == "unix":
        with socket_file(Path(path)):
            return _listen_at(server, address, tls)
    return _listen_at(server, address, tls)


def _listen_at(server: grpc.aio.Server, address: str, tls: ServerTls | None) -> int:
    port: int = server.add_insecure_port(address) if tls is None else server.add_secure_port(address, tls.credentials())
    return port


def _most_connections(addresses: int) -> int:
    """Say how many connections there may be at each of so many addresses."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return min(MOST_CONNECTIONS, max(files - _FILES_OF_ITS_OWN, files // 2) // addresses)


def _options(timing: StreamTiming, connections: int) -> tuple[tuple[str, int], ...]:
    return (
        ("grpc.max_allowed_incoming_connections", connections),
        ("grpc.server_handshake_timeout_ms", round(timing.handshake * 1000)),
        ("grpc.max_connection_idle_ms", round(timing.unused * 1000)),
        ("grpc.server_max_unrequested_time_in_server", round(timing.turn)),
        ("grpc.keepalive_time_ms", round(timing.keepalive_every * 1000)),
        ("grpc.keepalive_timeout_ms", round(timing.keepalive_answer * 1000)),
    )


def _ages(timing: StreamTiming) -> tuple[tuple[str, int], ...]:
    """Return when a connection ends; to end one itself, when its certificate does, gRPC for Python has no way."""
    return (
        ("grpc.max_connection_age_ms", round(timing.connection * 1000)),
        ("grpc.max_connection_age_grace_ms", round(timing.connection_end * 1000)),
    )
