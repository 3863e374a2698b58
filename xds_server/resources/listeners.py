"""The listeners that clients connect to: the front of each route, and the one that all share and call by host."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache
from typing import NamedTuple

from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRemoveOnMatch
from envoy_data_plane.envoy.config.core.v3 import (
    CidrRange,
    Http1ProtocolOptions,
    Http1ProtocolOptionsHeaderKeyFormat,
    Http1ProtocolOptionsHeaderKeyFormatProperCaseWords,
    HttpProtocolOptions,
    HttpProtocolOptionsHeadersWithUnderscoresAction,
    TcpKeepalive,
)
from envoy_data_plane.envoy.config.listener.v3 import Filter, FilterChain, Listener
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation as HeaderMutationFilter
from envoy_data_plane.envoy.extensions.filters.http.set_filter_state.v3 import Config as SetFilterState
from envoy_data_plane.envoy.extensions.filters.network.connection_limit.v3 import ConnectionLimit
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerInternalAddressConfig,
    HttpFilter,
    Rds,
)
from envoy_data_plane.envoy.extensions.http.early_header_mutation.header_mutation.v3 import (
    HeaderMutation as EarlyHeaderMutation,
)
from envoy_data_plane.envoy.type.matcher.v3 import StringMatcher

from controller.api.contract.entrance import EntranceTls, JwtProvider
from controller.api.contract.route import RouteKey
from controller.api.schema.client_headers import REMOVED, REMOVED_PREFIXES
from controller.api.timing import GatewayTiming
from xds_server.resources import names
from xds_server.resources.access_log import SAVING_FOR_LOG, AccessLog, request_log
from xds_server.resources.clusters import BUFFER_LIMIT_BYTES, CONNECTION_BUFFER_BYTES, HTTP2, listening_address
from xds_server.resources.encoding import ADS, encoded, extension, packed, resource
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
from xds_server.resources.http_connections import MANAGER, http_chain, router
from xds_server.resources.loops import loop_filter, loop_replies
from xds_server.resources.overflow import TRY_TIMEOUT_FILTER
from xds_server.resources.rate_limit import FILTER as RATE_LIMIT
from xds_server.resources.routing import SAVING_FILTER
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, Resource, ResourceKey

# Trap 10: they go before anything reads them.
_NO_SPOOFED_HEADERS = extension(
    "spoofed_headers",
    EarlyHeaderMutation(
        mutations=[
            *(HeaderMutation(remove=name) for name in REMOVED),
            *(
                HeaderMutation(remove_on_match=HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(prefix=prefix)))
                for prefix in REMOVED_PREFIXES
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

_FRONT_MANAGER = replace(
    MANAGER,
    use_remote_address=True,
    internal_address_config=_NO_INTERNAL_ADDRESSES,
    early_header_mutation_extensions=[_NO_SPOOFED_HEADERS],
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


def _front_manager(log: AccessLog, installation: str, timing: GatewayTiming) -> HttpConnectionManager:
    """Build what all fronts have in common; without the name of an installation no loop is noticed (trap 18)."""
    manager = replace(
        _FRONT_MANAGER,
        request_headers_timeout=timedelta(seconds=timing.headers_within),
        # It counts while there is no request, so that no stream ends by it, however long it is silent.
        common_http_protocol_options=replace(_CLIENT_HEADERS, idle_timeout=timedelta(seconds=timing.unused_by_clients)),
    )
    # What is saved for the log comes first: a request that comes back is logged, too.
    filters = [] if log is AccessLog.OFF else [SAVING_FOR_LOG]
    if not installation:
        return replace(manager, http_filters=filters)
    return replace(
        manager, http_filters=[*filters, loop_filter(installation)], local_reply_config=loop_replies(installation)
    )


@lru_cache(16)
def _managers(log: AccessLog, installation: str, timing: GatewayTiming) -> tuple[bytes, bytes, bytes]:
    """Serialise what all fronts have in common: alone, at a route's own port, and at the shared one."""
    common = _front_manager(log, installation, timing)
    own, shared = (
        replace(common, http_filters=[*common.http_filters, *more]) for more in (_ROUTE_FILTERS, _SHARED_FILTERS)
    )
    return encoded(common), encoded(own), encoded(shared)


def _keepalive(timing: GatewayTiming) -> TcpKeepalive:
    """Build what finds out that a client has vanished without a word, as one does whose host or network is gone.

    Its kernel answers, so a client may be as busy or as silent as it likes, and read as slowly: PING of HTTP/2 would be
    answered by a client alone that reads. For the same reason there is no TCP_USER_TIMEOUT.
    """
    return TcpKeepalive(
        keepalive_time=round(timing.keepalive_after),
        keepalive_interval=round(timing.keepalive_every),
        keepalive_probes=round(timing.keepalive_answer / timing.keepalive_every),
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
        self._handshake = timedelta(seconds=timing.handshake_within)
        self._keepalive = _keepalive(timing)
        self._first, self._front, self._shared = _managers(log, installation, timing)

    def front(self, door: Door) -> Resource:
        """Build the listener that clients connect to."""
        name = names.entrance(door.port)
        listener = Listener(
            name=name,
            address=listening_address(self._address, door.port),
            per_connection_buffer_limit_bytes=CONNECTION_BUFFER_BYTES,
            tcp_keepalive=self._keepalive,
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
            http_filters=[*looking, *(_ROUTE_FILTERS if looking else ()), router(key, self._log)],
            access_log=request_log(key, self._log),
            stat_prefix=names.entrance_statistics(key),
            rds=Rds(route_config_name=names.entrance_routes(key, door.port), config_source=ADS),
            local_reply_config=MISDIRECTED_REPLIES if hosts else None,
            strip_trailing_host_dot=bool(hosts),
        )
        manager = telling_of_clients(manager, tls.client_validation if tls else None)
        chain = http_chain(self._first if looking else self._front, manager, *self._connection_limit(key))
        return replace(
            chain,
            filter_chain_match=asked_for(hosts) if hosts else None,
            transport_socket=transport_socket(key, tls) if tls else None,
            transport_socket_connect_timeout=self._handshake if tls else None,
        )

    def shared(self, port: int) -> Resource:
        """Build the listener that clients of all routes connect to, which tells them apart by their hosts.

        What is here is for who speaks no TLS; `over_tls` builds the other parts of it.

        It does with a request what the fronts do, and knows no route: what it has of one comes by the route
        configuration of that one's front.
        """
        name = names.SHARED_ENTRANCE
        manager = HttpConnectionManager(
            http_filters=[router(None, self._log)],
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
            tcp_keepalive=self._keepalive,
            listener_filters=[INSPECTOR],
            listener_filters_timeout=self._handshake,
            # Who has connected and says nothing yet waits for no TLS.
            continue_on_listener_filters_timeout=True,
            filter_chains=[replace(http_chain(self._shared, manager), filter_chain_match=IN_THE_CLEAR)],
        )
        part = resource(names.shared_part(), listener)
        return replace(part, part_of=ResourceKey(LISTENER, name))

    def _connection_limit(self, key: RouteKey) -> Iterator[Filter]:
        """Bound what clients of one model take of the connections that all share: one more is closed at once."""
        if self._connections is not None:
            limit = ConnectionLimit(stat_prefix=names.entrance_statistics(key), max_connections=self._connections)
            yield Filter(name="envoy.filters.network.connection_limit", typed_config=packed(limit))


def _required(door: Door) -> Iterator[ResourceKey]:
    local = names.local_cluster(door.key)
    yield ResourceKey(CLUSTER, local)
    yield ResourceKey(ENDPOINT, local)
    if door.tls:
        yield from secrets_of(door.key, door.tls)
