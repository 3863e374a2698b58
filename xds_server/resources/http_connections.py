"""What the HTTP connection managers of all listeners have in common: times, upgrades, the router as the last filter."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerServerHeaderTransformation,
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
)

from controller.api.contract.route import RouteKey
from xds_server.resources.access_log import AccessLog, attempt_log
from xds_server.resources.clusters import HTTP2
from xds_server.resources.encoding import NO_TIMEOUT, packed

# What a long silent generation may last before its stream is taken for abandoned.
_IDLE = timedelta(hours=1)

_ROUTER_CONFIG = Router(suppress_envoy_headers=True)
_ROUTER = HttpFilter(name="envoy.filters.http.router", typed_config=packed(_ROUTER_CONFIG))
_WEBSOCKET = HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")

MANAGER = HttpConnectionManager(
    generate_request_id=False,
    server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
    stream_idle_timeout=_IDLE,
    # Trap 8: no delay. An answer cut off after its headers reaches the client at once, and a connection that is to be
    # closed stays until its last answer is read, however slowly.
    delayed_close_timeout=NO_TIMEOUT,
    http2_protocol_options=HTTP2,
    upgrade_configs=[_WEBSOCKET],
)


def router(key: RouteKey | None, log: AccessLog) -> HttpFilter:
    """Build the last of the filters, which sends a request on; without a key, those of all routes."""
    if log is AccessLog.OFF:
        return _ROUTER
    return replace(_ROUTER, typed_config=packed(replace(_ROUTER_CONFIG, upstream_log=attempt_log(key, log))))


def http_chain(common: bytes, manager: HttpConnectionManager, *before: Filter) -> FilterChain:
    """Build a filter chain that speaks HTTP: what is `common` to many is encoded already, `manager` is its own part."""
    http = Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed(manager, common))
    return FilterChain(filters=[*before, http])
