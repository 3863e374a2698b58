"""The internal listeners of one route: on the way to its remote backends, and from there back to its replicas.

https://www.envoyproxy.io/docs/envoy/latest/configuration/other_features/internal_listener
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from envoy_data_plane.envoy.config.accesslog.v3 import (
    AccessLogFilter,
    ComparisonFilter,
    ComparisonFilterOp,
    StatusCodeFilter,
)
from envoy_data_plane.envoy.config.core.v3 import (
    HttpProtocolOptions,
    Metadata,
    RuntimeUInt32,
)
from envoy_data_plane.envoy.config.listener.v3 import Listener, ListenerInternalListenerConfig
from envoy_data_plane.envoy.config.metrics.v3 import StatsMatcher
from envoy_data_plane.envoy.config.route.v3 import (
    Route,
    RouteConfiguration,
    RouteMatch,
    VirtualHost,
)
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import (
    HttpConnectionManager,
    HttpConnectionManagerForwardClientCertDetails,
    HttpFilter,
    LocalReplyConfig,
    Rds,
    ResponseMapper,
)

from controller.api.contract.route import RouteKey
from xds_server.resources import names
from xds_server.resources.access_log import AccessLog
from xds_server.resources.clusters import BUFFER_LIMIT_BYTES, CONNECTION_BUFFER_BYTES
from xds_server.resources.encoding import ADS, NO_TIMEOUT, encoded, packed, resource
from xds_server.resources.http_connections import MANAGER, http_chain, router
from xds_server.resources.original_request import PASSED_ON, original, receiving_filter
from xds_server.resources.routing import SIDE_HEADER, failover_policies, forwarding
from xds_server.snapshot.snapshot import CLUSTER, Resource, ResourceKey

# The front has added headers and the path may be longer: what it let through may not be too much here. A connection
# that nothing is asked on is ended by the cluster, which sends the requests: an end from here might meet one.
_INTERNAL_MANAGER = replace(
    MANAGER,
    common_http_protocol_options=HttpProtocolOptions(max_headers_count=200, idle_timeout=NO_TIMEOUT),
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

# Of a listener inside nothing is kept: the front and the clusters count each request. What all of them together would
# count, and leave, is 12 kB of a model (Envoy, "Metadata configurations", envoy.stats_matcher).
_UNCOUNTED = Metadata(typed_filter_metadata={"envoy.stats_matcher": packed(StatsMatcher(reject_all=True))})


class InternalListeners:
    """Builds the internal listeners of the Envoys of one installation, which log `log`."""

    def __init__(self, log: AccessLog) -> None:
        self._log = log

    def to_remote(self, key: RouteKey, remote: str) -> Resource:
        """Build the internal listener that turns a request into one for a remote backend (see `Routing.to_backend`).

        It is the second choice of a request that found no replica, and the only way to a backend that is not reached
        directly (see `is_direct`): what the front sees never has a credential of ours, and a request that lacks it is
        one that the front can send again. What it does stands in a route configuration, since a listener that changes
        leaves connections to the old one for minutes.
        """
        routes = Rds(route_config_name=names.remote_route_configuration(key, remote), config_source=ADS)
        manager = HttpConnectionManager(rds=routes, http_filters=[router(key, self._log)])
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
        manager = HttpConnectionManager(route_config=routes, http_filters=[router(key, self._log)])
        return resource(name, _internal(name, manager, _TO_LOCAL), [ResourceKey(CLUSTER, local_first)])


def _internal(name: str, routes: HttpConnectionManager, common: bytes) -> Listener:
    return Listener(
        name=name,
        internal_listener=ListenerInternalListenerConfig(),
        metadata=_UNCOUNTED,
        per_connection_buffer_limit_bytes=CONNECTION_BUFFER_BYTES,
        filter_chains=[http_chain(common, replace(routes, stat_prefix=name))],
    )
