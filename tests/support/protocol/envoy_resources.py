"""The smallest resources a real Envoy serves a request with, and an Envoy to give them to."""

import asyncio
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from google.protobuf import json_format

from tests.support.connections import accepting
from tests.support.envoy import Envoy
from tests.support.http import plain_http
from tests.support.waiting import PATIENCE
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, PREFIX, ROUTE, Resource, ResourceKey

ADS = {"ads": {}, "resource_api_version": "V3"}
EXTENSIONS = PREFIX + "envoy.extensions."


def pack(type_url, kind, content, requires=()):
    message = json_format.ParseDict(content, kind())
    name = content.get("name") or content["cluster_name"]
    return Resource.of(type_url, name, message.SerializeToString(deterministic=True), requires)


def cluster(name, **more):
    return pack(
        CLUSTER,
        cluster_pb2.Cluster,
        {
            "name": name,
            "type": "EDS",
            "connect_timeout": "1s",
            "eds_cluster_config": {"eds_config": ADS},
            "typed_extension_protocol_options": {
                "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                    "@type": EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions",
                    "explicit_http_config": {"http_protocol_options": {}},
                }
            },
            **more,
        },
    )


def endpoints(name, port):
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    return pack(
        ENDPOINT,
        endpoint_pb2.ClusterLoadAssignment,
        {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    )


def route(name):
    entry = {"match": {"prefix": "/"}, "route": {"cluster": name}}
    return pack(
        ROUTE,
        route_pb2.RouteConfiguration,
        {"name": name, "virtual_hosts": [{"name": name, "domains": ["*"], "routes": [entry]}]},
        [ResourceKey(CLUSTER, name), ResourceKey(ENDPOINT, name)],
    )


def listener(name, port):
    manager = {
        "@type": EXTENSIONS + "filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "rds": {"route_config_name": name, "config_source": ADS},
        "http_filters": [{"name": "router", "typed_config": {"@type": EXTENSIONS + "filters.http.router.v3.Router"}}],
        "access_log": [
            {
                "name": "stderr",
                "typed_config": {"@type": EXTENSIONS + "access_loggers.stream.v3.StderrAccessLog"},
            }
        ],
    }
    return pack(
        LISTENER,
        listener_pb2.Listener,
        {
            "name": name,
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": port}},
            "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
        },
    )


def model(name, port, upstream):
    return cluster(name), endpoints(name, upstream), listener(name, port), route(name)


@asynccontextmanager
async def upstream():
    """A server that answers every request with 200."""

    async def answer(reader, writer):
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with accepting(answer) as (port, _):
        yield port


@asynccontextmanager
async def running_envoy(folder: Path, xds_port: int, token: str):
    """A real Envoy that asks the server on `xds_port` for everything, over delta ADS."""
    envoy = Envoy("envoy-under-test", bootstrap(xds_port, token), folder, workers=1)
    try:
        await envoy.started()
        yield envoy
    finally:
        await envoy.stop()


def bootstrap(xds_port, token):
    def address(port):
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    xds = {
        "name": "xds",
        "type": "STATIC",
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": EXTENSIONS + "upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        },
        "load_assignment": {
            "cluster_name": "xds",
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address(xds_port)}}]}],
        },
    }
    ads = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [
            {
                "envoy_grpc": {
                    "cluster_name": "xds",
                    "retry_policy": {"retry_back_off": {"base_interval": "0.1s", "max_interval": "0.2s"}},
                }
            }
        ],
    }
    return {
        "node": {"id": "envoy-under-test", "cluster": "test", "metadata": {"beamlit_token": token}},
        "admin": {"address": address(0)},
        "static_resources": {"clusters": [xds]},
        "dynamic_resources": {"ads_config": ads, "cds_config": ADS, "lds_config": ADS},
    }


async def answers(port) -> bool:
    """Whether a request to this port comes back with 200."""
    try:
        async with plain_http(timeout=2 * PATIENCE) as client:
            return (await client.get(f"http://127.0.0.1:{port}/")).status_code == 200
    except httpx.TransportError:
        return False
