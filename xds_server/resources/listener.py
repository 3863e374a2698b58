"""The listeners of one model: the front for its clients, and the internal one in front of its remote backend."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRemoveOnMatch
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    CidrRange,
    Http1ProtocolOptions,
    HttpProtocolOptions,
    RuntimeUInt32,
    SocketAddress,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener, ListenerInternalListenerConfig
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation as HeaderMutationFilter
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.http.set_filter_state.v3 import Config as SetFilterState
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerInternalAddressConfig,
    HttpConnectionManagerServerHeaderTransformation,
    HttpConnectionManagerUpgradeConfig,
    HttpFilter,
    LocalReplyConfig,
    Rds,
    ResponseMapper,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from controller.api.contract.route import RouteKey
from xds_server.resources import access_log, names
from xds_server.resources.access_log import REMEMBERING_WHAT_WAS_SENT, AccessLog
from xds_server.resources.overflow import PATIENCE_FILTER
from xds_server.resources.packing import ADS, NEVER, extension, packed
from xds_server.resources.route import SAVING_FILTER, SIDE_THAT_ANSWERED, forwarding
from xds_server.resources.saved import HANDED_ON, reading_what_was_handed_on, state_of
from xds_server.resources.upstream import BUFFER_LIMIT_BYTES, HTTP2

# What a long silent generation may last before its stream is taken for abandoned.
_IDLE = timedelta(hours=1)

_SENDING_ON = Router(suppress_envoy_headers=True)
_ROUTER = HttpFilter(name="envoy.filters.http.router", typed_config=packed(_SENDING_ON))
_WEBSOCKET = HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")

# Trap 10: `x-envoy-*` steers the router (retries, timeouts) and `x-beamlit-*` is ours; a client's go before anything
# reads them.
_NO_SPOOFED_HEADERS = extension(
    "spoofed_headers",
    EarlyHeaderMutation(
        mutations=[
            HeaderMutation(remove_on_match=HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(prefix=prefix)))
            for prefix in ("x-envoy-", "x-beamlit-")
        ]
    ),
)

# Trap 10: an empty list would still trust loopback, so this names an address that no client has.
_NOBODY_IS_INTERNAL = HttpConnectionManagerInternalAddressConfig(
    cidr_ranges=[CidrRange(address_prefix="255.255.255.255", prefix_len=32)]
)

# Off until a route turns one on, with what it is to do there. What stands here would be done besides, first.
_OF_ROUTES = [
    HttpFilter(name=SAVING_FILTER, disabled=True, typed_config=packed(SetFilterState())),
    HttpFilter(name=PATIENCE_FILTER, disabled=True, typed_config=packed(HeaderMutationFilter())),
]

_EVERY = HttpConnectionManager(
    generate_request_id=False,
    server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
    stream_idle_timeout=_IDLE,
    # Trap 8: no delay. An answer cut off after its headers reaches the client at once, and a connection that is to be
    # closed stays until its last answer is read, however slowly.
    delayed_close_timeout=NEVER,
    http2_protocol_options=HTTP2,
    upgrade_configs=[_WEBSOCKET],
)

_FRONT_MANAGER = replace(
    _EVERY,
    http_filters=_OF_ROUTES,
    use_remote_address=True,
    internal_address_config=_NOBODY_IS_INTERNAL,
    early_header_mutation_extensions=[_NO_SPOOFED_HEADERS],
    http_protocol_options=Http1ProtocolOptions(accept_http_10=True, default_host_for_http_10="localhost"),
    # Trap 15: or a client's "/../" leads out of the path prefix of the remote backend.
    normalize_path=True,
)
_FRONT = bytes(_FRONT_MANAGER)
_FRONT_THAT_TELLS = bytes(replace(_FRONT_MANAGER, http_filters=[REMEMBERING_WHAT_WAS_SENT, *_OF_ROUTES]))

# The front has added headers and the path may be longer: what it let through may not be too much here.
_BEHIND_THE_FRONT = replace(
    _EVERY,
    common_http_protocol_options=HttpProtocolOptions(max_headers_count=200),
    max_request_headers_kb=96,
    use_remote_address=False,
    skip_xff_append=True,
)


# Only answers of Envoy itself are mapped: those of the remote backend stay as they are. Trap 11: the credential
# injector answers 401 itself when it has no credential.
_IS_401 = ComparisonFilter(op=ComparisonFilterOp.EQ, value=RuntimeUInt32(default_value=401, runtime_key="unused"))
_WITHOUT_CREDENTIAL = AccessLogFilter(status_code_filter=StatusCodeFilter(comparison=_IS_401))
_NOT_ANSWERED = LocalReplyConfig(mappers=[ResponseMapper(filter=_WITHOUT_CREDENTIAL, status_code=503)])
_TO_REMOTE = bytes(replace(_BEHIND_THE_FRONT, local_reply_config=_NOT_ANSWERED))

_BACK_TO_LOCAL = bytes(
    replace(
        _BEHIND_THE_FRONT,
        http_filters=[HttpFilter(name="handed_on", typed_config=packed(reading_what_was_handed_on()))],
    )
)


def front_listener(model: RouteKey, port: int, address: str, log: AccessLog = AccessLog.OFF) -> Listener:
    """Build the listener that clients connect to."""
    return Listener(
        name=names.front_listener(model),
        address=Address(socket_address=SocketAddress(address=address, port_value=port)),
        per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        filter_chains=[
            _http(
                _FRONT if log is AccessLog.OFF else _FRONT_THAT_TELLS,
                HttpConnectionManager(
                    http_filters=[_router(model, log)],
                    access_log=access_log.of_requests(model, log),
                    stat_prefix=names.front_listener(model),
                    rds=Rds(route_config_name=names.route_configuration(model), config_source=ADS),
                ),
            )
        ],
    )


def remote_listener(model: RouteKey, log: AccessLog = AccessLog.OFF) -> Listener:
    """Build the internal listener that turns a request into one for the remote backend (see `to_backend`).

    It is the second choice of a request that found no replica, and the only way to a backend that is not reached
    directly (see `is_direct`): what the front sees never has a credential of ours, and a request that lacks it is one
    that the front can send again. What it does stands in a route configuration, since a listener that changes leaves
    connections to the old one for minutes.
    """
    routes = Rds(route_config_name=names.remote_route_configuration(model), config_source=ADS)
    manager = HttpConnectionManager(rds=routes, http_filters=[_router(model, log)])
    return _internal(names.remote_listener(model), manager, _TO_REMOTE)


def local_listener(model: RouteKey, log: AccessLog = AccessLog.OFF) -> Listener:
    """Build the internal listener that hands a request to the replicas after the remote backend did not answer it.

    It was sent to the backend directly, made into one for it: its path and its host are restored here, its headers are
    already. The listener knows nothing of the backend, so a request that met an older version of it comes back just as
    well.
    """
    restored: dict[str, Any] = {"path_rewrite": state_of(":path"), "host_rewrite": state_of(":authority")}
    route = Route(
        match=RouteMatch(prefix="/"),
        route=forwarding(names.local_first_cluster(model), **restored),
        request_headers_to_remove=list(HANDED_ON.values()),
        response_headers_to_add=[SIDE_THAT_ANSWERED],
    )
    name = names.local_listener(model)
    routes = RouteConfiguration(name=name, virtual_hosts=[VirtualHost(name="model", domains=["*"], routes=[route])])
    manager = HttpConnectionManager(route_config=routes, http_filters=[_router(model, log)])
    return _internal(name, manager, _BACK_TO_LOCAL)


def _router(model: RouteKey, log: AccessLog) -> HttpFilter:
    """Build the last of the filters, which sends a request on."""
    if log is AccessLog.OFF:
        return _ROUTER
    return replace(_ROUTER, typed_config=packed(replace(_SENDING_ON, upstream_log=access_log.of_attempts(model, log))))


def _internal(name: str, routes: HttpConnectionManager, common: bytes) -> Listener:
    return Listener(
        name=name,
        internal_listener=ListenerInternalListenerConfig(),
        per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        filter_chains=[_http(common, replace(routes, stat_prefix=name))],
    )


def _http(common: bytes, manager: HttpConnectionManager) -> FilterChain:
    return FilterChain(
        filters=[Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed(manager, common))]
    )
