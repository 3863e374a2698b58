"""The listeners of one route: the front for its clients, and internal ones on the way to remote backends and back.

Beside them the one that all routes share: what clients call by host.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any, NamedTuple

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRemoveOnMatch
from envoy_data_plane.envoy.config.core.v3 import (
    CidrRange,
    Http1ProtocolOptions,
    Http1ProtocolOptionsHeaderKeyFormat,
    Http1ProtocolOptionsHeaderKeyFormatProperCaseWords,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    Metadata,
    RuntimeUInt32,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener, ListenerInternalListenerConfig
from envoy_data_plane.envoy.config.metrics.v3 import StatsMatcher
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation as HeaderMutationFilter
from envoy_data_plane.envoy.extensions.filters.http.router.v3 import Router
from envoy_data_plane.envoy.extensions.filters.http.set_filter_state.v3 import Config as SetFilterState
from envoy_data_plane.envoy.extensions.filters.network.connection_limit.v3 import ConnectionLimit
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
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

from controller.api.contract.entrance import EntranceTls, JwtProvider
from controller.api.contract.route import RouteKey
from controller.api.timing import GatewayTiming
from xds_server.resources import names
from xds_server.resources.access_log import SAVING_FOR_LOG, AccessLog, attempt_log, request_log
from xds_server.resources.clusters import BUFFER_LIMIT_BYTES, CONNECTION_BUFFER_BYTES, HTTP2, listening_address
from xds_server.resources.encoding import ADS, NO_TIMEOUT, encoded, extension, packed, resource
from xds_server.resources.entrance import (
    IN_THE_CLEAR,
    INSPECTOR,
    MISDIRECTED_REPLIES,
    asked_for,
    only_for,
    secrets_of,
    telling_of_clients,
    token_filters,
    transport_socket,
)
from xds_server.resources.hosts import BY_HOST, LOWER_CASE, UNKNOWN_HOST
from xds_server.resources.loops import loop_filter, loop_replies
from xds_server.resources.original_request import PASSED_ON, original, receiving_filter
from xds_server.resources.overflow import TRY_TIMEOUT_FILTER
from xds_server.resources.rate_limit import FILTER as RATE_LIMIT
from xds_server.resources.routing import SAVING_FILTER, SIDE_HEADER, failover_policies, forwarding
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, Resource, ResourceKey

# What a long silent generation may last before its stream is taken for abandoned.
_IDLE = timedelta(hours=1)

_ROUTER_CONFIG = Router(suppress_envoy_headers=True)
_ROUTER = HttpFilter(name="envoy.filters.http.router", typed_config=packed(_ROUTER_CONFIG))
_WEBSOCKET = HttpConnectionManagerUpgradeConfig(upgrade_type="websocket")

# Trap 10: `x-envoy-*` steers the router (retries, timeouts) and `x-beamlit-*` is ours; a client's go before anything
# reads them. `Proxy` is no header of HTTP: a server that runs programs by CGI takes it for `HTTP_PROXY`, through which
# it then sends what it asks of others (https://httpoxy.org).
_NO_SPOOFED_HEADERS = extension(
    "spoofed_headers",
    EarlyHeaderMutation(
        mutations=[
            HeaderMutation(remove="proxy"),
            *(
                HeaderMutation(remove_on_match=HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(prefix=prefix)))
                for prefix in ("x-envoy-", "x-beamlit-")
            ),
        ]
    ),
)

# Trap 10: an empty list would still trust loopback, so this names an address that no client has.
_NO_INTERNAL_ADDRESSES = HttpConnectionManagerInternalAddressConfig(
    cidr_ranges=[CidrRange(address_prefix="255.255.255.255", prefix_len=32)]
)

# What one client may take of an Envoy (docs/data-plane.md, "What clients may take"). As many streams as a connection
# may have, with all that each may send ahead, fill its window: none waits for another one (trap 17), and a client that
# has more to do opens another connection.
_STREAMS = 100
_CLIENT_HTTP2 = replace(
    HTTP2, max_concurrent_streams=_STREAMS, initial_connection_window_size=_STREAMS * BUFFER_LIMIT_BYTES
)
# A name with `_` for `-` is the same to many servers, so it would pass by what is taken off or overwritten here. Such
# headers are dropped, as by nginx, and the request is served: most of them are harmless.
_CLIENT_HEADERS = HttpProtocolOptions(
    max_headers_count=100,
    headers_with_underscores_action=HttpProtocolOptionsHeadersWithUnderscoresAction.DROP_HEADER,
)

# Off until a route turns one on, with what it is to do there. What stands here would be done besides, first.
_ROUTE_FILTERS = [
    RATE_LIMIT,
    HttpFilter(name=SAVING_FILTER, disabled=True, typed_config=packed(SetFilterState())),
    HttpFilter(name=TRY_TIMEOUT_FILTER, disabled=True, typed_config=packed(HeaderMutationFilter())),
]

# On: which of them are off is settled before `LOWER_CASE` has found the route of a host in upper case.
_SHARED_FILTERS = [LOWER_CASE, *(replace(one, disabled=False) for one in _ROUTE_FILTERS)]

_MANAGER = HttpConnectionManager(
    generate_request_id=False,
    server_header_transformation=HttpConnectionManagerServerHeaderTransformation.PASS_THROUGH,
    stream_idle_timeout=_IDLE,
    # Trap 8: no delay. An answer cut off after its headers reaches the client at once, and a connection that is to be
    # closed stays until its last answer is read, however slowly.
    delayed_close_timeout=NO_TIMEOUT,
    http2_protocol_options=HTTP2,
    upgrade_configs=[_WEBSOCKET],
)

_FRONT_MANAGER = replace(
    _MANAGER,
    use_remote_address=True,
    internal_address_config=_NO_INTERNAL_ADDRESSES,
    early_header_mutation_extensions=[_NO_SPOOFED_HEADERS],
    common_http_protocol_options=_CLIENT_HEADERS,
    http2_protocol_options=_CLIENT_HTTP2,
    http_protocol_options=Http1ProtocolOptions(
        accept_http_10=True,
        default_host_for_http_10="localhost",
        # As the original's gateway writes them: who greps for "Cf-Ray" finds it, whatever the backend speaks.
        header_key_format=Http1ProtocolOptionsHeaderKeyFormat(
            proper_case_words=Http1ProtocolOptionsHeaderKeyFormatProperCaseWords()
        ),
    ),
    max_request_headers_kb=60,
    # Trap 15: or a client's "/../" leads out of the path prefix of the remote backend.
    normalize_path=True,
)

# The front has added headers and the path may be longer: what it let through may not be too much here.
_INTERNAL_MANAGER = replace(
    _MANAGER,
    common_http_protocol_options=HttpProtocolOptions(max_headers_count=200),
    max_request_headers_kb=96,
    use_remote_address=False,
    skip_xff_append=True,
    # The front alone writes it, or takes it off.
    forward_client_cert_details=HttpConnectionManagerForwardClientCertDetails.ALWAYS_FORWARD_ONLY,
)

# Only answers of Envoy itself are mapped: those of the remote backend stay as they are. Trap 11: the credential
# injector answers 401 itself when it has no credential.
_IS_401 = ComparisonFilter(op=ComparisonFilterOp.EQ, value=RuntimeUInt32(default_value=401, runtime_key="unused"))
_WITHOUT_CREDENTIAL = AccessLogFilter(status_code_filter=StatusCodeFilter(comparison=_IS_401))
_NOT_ANSWERED = LocalReplyConfig(mappers=[ResponseMapper(filter=_WITHOUT_CREDENTIAL, status_code=503)])
_TO_REMOTE = encoded(replace(_INTERNAL_MANAGER, local_reply_config=_NOT_ANSWERED))

_TO_LOCAL = encoded(
    replace(
        _INTERNAL_MANAGER,
        http_filters=[HttpFilter(name="handed_on", typed_config=packed(receiving_filter()))],
    )
)


def _front_manager(log: AccessLog, installation: str, headers_within: float) -> HttpConnectionManager:
    """Build what all fronts have in common; without the name of an installation no loop is noticed (trap 18)."""
    manager = replace(_FRONT_MANAGER, request_headers_timeout=timedelta(seconds=headers_within))
    # What is saved for the log comes first: a request that comes back is logged, too.
    filters = [] if log is AccessLog.OFF else [SAVING_FOR_LOG]
    if not installation:
        return replace(manager, http_filters=filters)
    return replace(
        manager, http_filters=[*filters, loop_filter(installation)], local_reply_config=loop_replies(installation)
    )


class Door(NamedTuple):
    """What is asked of clients before they come in to a route, and the port that it has of its own."""

    key: RouteKey
    port: int
    tls: EntranceTls | None = None
    jwt: tuple[JwtProvider, ...] = ()


class Listeners:
    """Builds the listeners of the Envoys of one `installation`, which listen on `address` and log `log`.

    At each of them clients of one model may have so many `connections` at a time, or any number (None).
    """

    def __init__(
        self, address: str, log: AccessLog, installation: str, timing: GatewayTiming, connections: int | None = None
    ) -> None:
        self._address, self._log, self._connections = address, log, connections
        common = _front_manager(log, installation, timing.headers_within)
        self._first = encoded(common)
        self._front = encoded(replace(common, http_filters=[*common.http_filters, *_ROUTE_FILTERS]))
        self._shared = encoded(replace(common, http_filters=[*common.http_filters, *_SHARED_FILTERS]))

    def front(self, door: Door) -> Resource:
        """Build the listener that clients connect to."""
        name = names.entrance(door.port)
        listener = Listener(
            name=name,
            address=listening_address(self._address, door.port),
            per_connection_buffer_limit_bytes=CONNECTION_BUFFER_BYTES,
            filter_chains=[self._chain(door)],
        )
        return resource(name, listener, _required(door))

    def over_tls(self, door: Door, hosts: tuple[str, ...]) -> Resource:
        """Build the part of the shared listener for clients who ask for these hosts of a route over TLS.

        A change of it is one of that listener's filter chains alone: connections on the others go on. Unlike the
        listener of the route's own port it requires no secrets: with one that an Envoy refuses, the whole would be
        withheld from it, and every other route's change with it.
        """
        chain = self._chain(door, *hosts)
        (name,) = {host.partition(":")[0] for host in hosts}
        part = resource(names.shared_part(name), Listener(filter_chains=[chain]), _required(door._replace(tls=None)))
        return replace(part, part_of=ResourceKey(LISTENER, names.SHARED_ENTRANCE))

    def _chain(self, door: Door, *hosts: str) -> FilterChain:
        """Build the filter chain of one route, on the shared port for these hosts of it.

        Who shows no token costs no bucket of a rate limit anything: tokens are looked at first.
        """
        key, tls = door.key, door.tls
        looking = [*([only_for(hosts)] if hosts else []), *token_filters(door.jwt)]
        manager = HttpConnectionManager(
            http_filters=[*looking, *(_ROUTE_FILTERS if looking else ()), self._router(key)],
            access_log=request_log(key, self._log),
            stat_prefix=names.entrance_statistics(key),
            rds=Rds(route_config_name=names.entrance_routes(key, door.port), config_source=ADS),
            local_reply_config=MISDIRECTED_REPLIES if hosts else None,
            strip_trailing_host_dot=bool(hosts),
        )
        manager = telling_of_clients(manager, tls.client_validation if tls else None)
        chain = _http(self._first if looking else self._front, manager, *self._connection_limit(key))
        return replace(
            chain,
            filter_chain_match=asked_for(hosts) if hosts else None,
            transport_socket=transport_socket(key, tls) if tls else None,
        )

    def shared(self, port: int) -> Resource:
        """Build the listener that clients of all routes connect to, which tells them apart by their hosts.

        What is here is for who speaks no TLS; `over_tls` builds the other parts of it.

        It does with a request what the fronts do, and knows no route: what it has of one comes by the route
        configuration of that one's front.
        """
        name = names.SHARED_ENTRANCE
        manager = HttpConnectionManager(
            http_filters=[self._router(None)],
            access_log=request_log(None, self._log),
            stat_prefix=name,
            scoped_routes=BY_HOST,
            local_reply_config=UNKNOWN_HOST,
            # A name that ends in a dot is the same one, whole (RFC 3986, section 3.2.2).
            strip_trailing_host_dot=True,
        )
        listener = Listener(
            name=name,
            address=listening_address(self._address, port),
            per_connection_buffer_limit_bytes=CONNECTION_BUFFER_BYTES,
            listener_filters=[INSPECTOR],
            # Who has connected and says nothing yet waits for no TLS.
            continue_on_listener_filters_timeout=True,
            filter_chains=[replace(_http(self._shared, manager), filter_chain_match=IN_THE_CLEAR)],
        )
        part = resource(names.shared_part(), listener)
        return replace(part, part_of=ResourceKey(LISTENER, name))

    def to_remote(self, key: RouteKey, remote: str) -> Resource:
        """Build the internal listener that turns a request into one for a remote backend (see `Routing.to_backend`).

        It is the second choice of a request that found no replica, and the only way to a backend that is not reached
        directly (see `is_direct`): what the front sees never has a credential of ours, and a request that lacks it is
        one that the front can send again. What it does stands in a route configuration, since a listener that changes
        leaves connections to the old one for minutes.
        """
        routes = Rds(route_config_name=names.remote_route_configuration(key, remote), config_source=ADS)
        manager = HttpConnectionManager(rds=routes, http_filters=[self._router(key)])
        name = names.remote_listener(key, remote)
        return resource(name, _internal(name, manager, _TO_REMOTE))

    def to_local(self, key: RouteKey, remotes: int) -> Resource:
        """Build the internal listener that passes a request to the replicas after a remote backend did not answer it.

        It was sent to the backend directly, made into one for it: its path and its host are restored here, its headers
        are already. The listener knows nothing of the backend, so a request that met an older version of it comes back
        just as well. If there are several `remotes`, the other ones are left if the replicas do not answer either.
        """
        name, local_first = names.local_listener(key), names.local_first_cluster(key)
        restored: dict[str, Any] = {"path_rewrite": original(":path"), "host_rewrite": original(":authority")}
        others = failover_policies(remotes) if remotes > 1 else {}
        route = Route(
            match=RouteMatch(prefix="/"),
            route=forwarding(local_first, **restored, **others),
            request_headers_to_remove=list(PASSED_ON.values()),
            response_headers_to_add=[SIDE_HEADER],
        )
        routes = RouteConfiguration(
            name=name,
            virtual_hosts=[
                VirtualHost(name="model", domains=["*"], routes=[route], request_body_buffer_limit=BUFFER_LIMIT_BYTES)
            ],
        )
        manager = HttpConnectionManager(route_config=routes, http_filters=[self._router(key)])
        return resource(name, _internal(name, manager, _TO_LOCAL), [ResourceKey(CLUSTER, local_first)])

    def _connection_limit(self, key: RouteKey) -> Iterator[Filter]:
        """Bound what clients of one model take of the connections that all share: one more is closed at once."""
        if self._connections is not None:
            limit = ConnectionLimit(stat_prefix=names.entrance_statistics(key), max_connections=self._connections)
            yield Filter(name="envoy.filters.network.connection_limit", typed_config=packed(limit))

    def _router(self, key: RouteKey | None) -> HttpFilter:
        """Build the last of the filters, which sends a request on; without a key, those of all routes."""
        if self._log is AccessLog.OFF:
            return _ROUTER
        return replace(_ROUTER, typed_config=packed(replace(_ROUTER_CONFIG, upstream_log=attempt_log(key, self._log))))


def _required(door: Door) -> Iterator[ResourceKey]:
    local = names.local_cluster(door.key)
    yield ResourceKey(CLUSTER, local)
    yield ResourceKey(ENDPOINT, local)
    if door.tls:
        yield from secrets_of(door.key, door.tls)


# Of a listener inside nothing is kept: the front and the clusters count each request. What all of them together would
# count, and leave, is 12 kB of a model (Envoy, "Metadata configurations", envoy.stats_matcher).
_UNCOUNTED = Metadata(typed_filter_metadata={"envoy.stats_matcher": packed(StatsMatcher(reject_all=True))})


def _internal(name: str, routes: HttpConnectionManager, common: bytes) -> Listener:
    return Listener(
        name=name,
        internal_listener=ListenerInternalListenerConfig(),
        metadata=_UNCOUNTED,
        per_connection_buffer_limit_bytes=CONNECTION_BUFFER_BYTES,
        filter_chains=[_http(common, replace(routes, stat_prefix=name))],
    )


def _http(common: bytes, manager: HttpConnectionManager, *before: Filter) -> FilterChain:
    http = Filter(name="envoy.filters.network.http_connection_manager", typed_config=packed(manager, common))
    return FilterChain(filters=[*before, http])
