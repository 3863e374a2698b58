"""The servers behind all models: an Envoy that answers at once, so that 5,000 health checks a second cost little."""

from __future__ import annotations

from pathlib import Path

from benchmarks.cluster.objects import Servers
from controller.gateway.bootstrap import HostPort
from tests.support.envoy import Envoy
from tests.support.network import unused_port
from tests.support.processes import Child

HELD = "/held"
"""The path of requests that are answered only after `HELD_FOR` seconds."""
HELD_FOR = 10

_HTTP = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager"
_FAULT = "type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault"
_ROUTER = "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"


def unused_servers(host: str, replicas: int) -> Servers:
    """Choose ports that nobody listens on."""
    remote, *local = (HostPort(host, unused_port()) for _ in range(replicas + 1))
    return Servers(tuple(local), remote)


def start(servers: Servers, folder: Path) -> Child:
    """Start the one process that listens at all of them."""
    return Envoy("servers", _config(servers), folder, workers=1).process


def _config(servers: Servers) -> dict[str, object]:
    answer = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": {"inline_string": "here"}}}
    delay = {"fixed_delay": f"{HELD_FOR}s", "percentage": {"numerator": 100}}
    held = {
        **answer,
        "match": {"prefix": HELD},
        "typed_per_filter_config": {"fault": {"@type": _FAULT, "delay": delay}},
    }
    manager = {
        "@type": _HTTP,
        "stat_prefix": "servers",
        "generate_request_id": False,
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [held, answer]}]},
        "http_filters": [
            {"name": "fault", "typed_config": {"@type": _FAULT}},
            {"name": "router", "typed_config": {"@type": _ROUTER}},
        ],
    }
    chain = {"filters": [{"name": "http", "typed_config": manager}]}
    addresses = [
        {"socket_address": {"address": one.host, "port_value": one.port}} for one in (servers.remote, *servers.replicas)
    ]
    listener = {
        "name": "servers",
        "address": addresses[0],
        "additional_addresses": [{"address": one} for one in addresses[1:]],
        "filter_chains": [chain],
    }
    return {"static_resources": {"listeners": [listener]}}
