"""The configuration that an Envoy starts with."""

from __future__ import annotations

import re
import sysconfig
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import yaml

from controller.gateway.client_tls import ClientTls, token_filters, transport_socket

_TEMPLATE = "bootstrap.yaml"
# What a path has that gRPC and Envoy take as it is: gRPC reads it as part of a URI, in which % and ? mean something.
_SOCKET_PATH = re.compile(r"/[\w./@+,=-]*[\w@+,=-]", re.ASCII)
_LONGEST_SOCKET_PATH = 107  # Bytes: unix(7), without the zero at the end.
_HOST_PORT = re.compile(r"(\[(?P<bracketed>[^\[\]\s]+)\]|(?P<host>[^\[\]:\s]+)):(?P<port>[0-9]{1,5})")


@dataclass(frozen=True, slots=True)
class HostPort:
    """A host and a port; an IPv6 host stands in brackets where both are written together."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> HostPort:
        """Parse `127.0.0.1:18000`, `[::1]:18000` or `name:18000`; raise ValueError with what is wrong."""
        match = _HOST_PORT.fullmatch(text)
        if match is None or int(match["port"]) > 65535:
            raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:18000")
        return cls(match["bracketed"] or match["host"], int(match["port"]))

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this host get there."""
        try:
            return self.host == "localhost" or ip_address(self.host).is_loopback
        except ValueError:
            return False

    def at(self, port: int) -> HostPort:
        """Return the same host with the port that it was given when 0 was asked for."""
        return HostPort(self.host, port)

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixSocket:
    """A socket file, where only programs of this host come that its mode lets in."""

    path: Path

    @classmethod
    def parse(cls, text: str) -> UnixSocket:
        """Parse `unix:/run/beamlit/xds.sock`; raise ValueError with what is wrong."""
        scheme, _, path = text.partition(":")
        if scheme != "unix" or not _SOCKET_PATH.fullmatch(path):
            raise ValueError(
                f"{text!r} is not unix:/PATH, such as unix:/run/beamlit/xds.sock: an absolute path of letters, digits "
                "and ./@+,=_-"
            )
        if len(path) > _LONGEST_SOCKET_PATH:
            raise ValueError(f"{text!r} has a path of more than {_LONGEST_SOCKET_PATH} characters")
        return cls(Path(path))

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this host get there: always."""
        return True

    def at(self, _port: int) -> UnixSocket:
        """Return itself: it has no port."""
        return self

    def __str__(self) -> str:
        return f"unix:{self.path}"


XdsAddress = HostPort | UnixSocket
"""Where an xDS server listens, or is reached."""


def parse_xds_address(text: str) -> XdsAddress:
    """Parse `127.0.0.1:18000` or `unix:/run/beamlit/xds.sock`; raise ValueError with what is wrong."""
    return UnixSocket.parse(text) if text.startswith("unix:") else HostPort.parse(text)


@dataclass(frozen=True, slots=True)
class Provision:
    """What an Envoy is given.

    * `memory` are the bytes that it may have in all; None sets no bound.
    * `connections` is how many its clients may have at a time, all models together.
    * `all_statistics` has it count everything that it can: about 0.2 MB more for each model.
    * `tls` is how it joins the xDS server; None: without TLS. `sds` is the folder by which it follows those files.
    """

    memory: int | None = None
    connections: int = 50_000
    all_statistics: bool = False
    tls: ClientTls | None = None
    sds: Path | None = None


def bootstrap_for(
    node_id: str,
    token: str,
    xds: XdsAddress,
    admin: HostPort | Path | None,
    provision: Provision = Provision(),
) -> str:
    """Render the bootstrap of one Envoy as YAML. It holds the token: keep it from other users.

    So does what Envoy shows at its admin address (`/config_dump`): a socket file that only this user may open, an
    address that everybody on the host can reach, or none.
    """
    bootstrap = yaml.safe_load(_template().read_text())
    bootstrap["node"]["id"] = node_id
    bootstrap["node"]["metadata"]["beamlit_token"] = token
    match admin:
        case HostPort(host, port):
            bootstrap["admin"] = {"address": {"socket_address": {"address": host, "port_value": port}}}
        case Path():
            bootstrap["admin"] = {"address": {"pipe": {"path": str(admin), "mode": 0o600}}}
    cluster = bootstrap["static_resources"]["clusters"][0]
    endpoint = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"][0]["endpoint"]
    match xds:
        case HostPort(host, port):
            endpoint["address"] = {"socket_address": {"address": host, "port_value": port}}
            if provision.tls:
                cluster["transport_socket"] = transport_socket(provision.tls, host, provision.sds)
            if provision.tls and provision.tls.token and provision.sds:
                (http,) = cluster["typed_extension_protocol_options"].values()
                http["http_filters"] = token_filters(provision.sds)
        case UnixSocket(path):
            endpoint["address"] = {"pipe": {"path": str(path)}}
            # There is no name to look up.
            cluster["type"] = "STATIC"
    bootstrap["overload_manager"] = _overload_manager(provision)
    if provision.all_statistics:
        del bootstrap["stats_config"], bootstrap["deferred_stat_options"]
    rendered: str = yaml.safe_dump(bootstrap, sort_keys=False)
    return rendered


_HEAP = "envoy.resource_monitors.fixed_heap"
# Not heap: the pages of the program itself, 57 MiB as measured, and what clients fill between two looks at the heap.
_APART = 96 * 2**20
# Of what is left, or of half of it all where that is more: pages that are freed and not yet returned do not count.
_HEAP_SHARE = 0.85


def _from(share: float) -> dict[str, object]:
    return {"triggers": [{"name": _HEAP, "threshold": {"value": share}}]}


# What is done as the heap fills, by the share of it that is used (Envoy, "Overload manager"): what buffers most goes
# first, which is never a stream of tokens; so do connections without a request, the longer they had none; then clients
# are told to come back on another connection, requests are answered with 503, and connections wait in the kernel.
_ACTIONS: dict[str, dict[str, object]] = {
    "shrink_heap": _from(0.85),
    # Envoy lets go of fifty streams each time that the share changes, and of no more when it is saturated: ADR 69.
    "reset_high_memory_stream": {
        "triggers": [{"name": _HEAP, "scaled": {"scaling_threshold": 0.7, "saturation_threshold": 1.0}}]
    },
    # Not the times of streams, which Envoy could make shorter as well: a request would end by them.
    "reduce_timeouts": {
        "triggers": [{"name": _HEAP, "scaled": {"scaling_threshold": 0.8, "saturation_threshold": 0.9}}],
        "typed_config": {
            "@type": "type.googleapis.com/envoy.config.overload.v3.ScaleTimersOverloadActionConfig",
            "timer_scale_factors": [{"timer": "HTTP_DOWNSTREAM_CONNECTION_IDLE", "min_timeout": "2s"}],
        },
    },
    "disable_http_keepalive": _from(0.92),
    "stop_accepting_requests": _from(0.95),
    "stop_accepting_connections": _from(1.0),
}

# Streams that hold less than 64 KiB are never reset for their memory.
_SMALLEST_RESET = 16  # A power of two.

# Streams of HTTP/2 that have begun send on, and what is no body is counted to none of them: in the end, a connection
# that says more is ended. So is one of HTTP/1.1, whatever the name says (as measured with 1.40): without an answer to a
# request, and that of a WebSocket which sends. What only receives goes on.
_SHED_AT = {"http2_server_go_away_and_close_on_dispatch": _from(0.98)}


def _overload_manager(provision: Provision) -> dict[str, object]:
    """Bound what clients can make an Envoy use."""
    monitors = "type.googleapis.com/envoy.extensions.resource_monitors"
    connections = {
        "@type": f"{monitors}.downstream_connections.v3.DownstreamConnectionsConfig",
        "max_active_downstream_connections": provision.connections,
    }
    bounded: list[dict[str, object]] = [
        {"name": "envoy.resource_monitors.global_downstream_max_connections", "typed_config": connections}
    ]
    if provision.memory is None:
        return {"resource_monitors": bounded}
    heap = {
        "@type": f"{monitors}.fixed_heap.v3.FixedHeapConfig",
        "max_heap_size_bytes": int(max(provision.memory - _APART, provision.memory / 2) * _HEAP_SHARE),
    }
    return {
        # Between two looks a client fills what its network carries: at 10 Gbit/s, 25 MB.
        "refresh_interval": "0.02s",
        "resource_monitors": [*bounded, {"name": _HEAP, "typed_config": heap}],
        "actions": [{"name": f"envoy.overload_actions.{name}", **when} for name, when in _ACTIONS.items()],
        "loadshed_points": [{"name": f"envoy.load_shed_points.{name}", **when} for name, when in _SHED_AT.items()],
        "buffer_factory_config": {"minimum_account_to_track_power_of_two": _SMALLEST_RESET},
    }


def _template() -> Path:
    """Find the template: beside the packages in a checkout, among the installed data otherwise."""
    checkout = Path(__file__).parents[2] / "envoy" / _TEMPLATE
    return checkout if checkout.exists() else Path(sysconfig.get_path("data")) / "share" / "beamlit" / _TEMPLATE
