"""The clusters of one route: its replicas, the ways to its remote backends and back, and sides behind each other.

What every cluster has is `CLUSTER_DEFAULTS`; those of real servers, which are checked, have `PICK_OF_TWO` or
`PICK_LEAST`. The clusters of the remote backends themselves are in `remote_backend`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import lru_cache

from envoy.config.core.v3 import base_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterCustomClusterType,
    ClusterDiscoveryType,
    ClusterEdsClusterConfig,
    ClusterLbPolicy,
    LoadBalancingPolicy,
    LoadBalancingPolicyPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    EnvoyInternalAddress,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    Metadata,
    SocketAddress,
)
from envoy_data_plane.envoy.config.core.v3 import HttpProtocolOptions as CommonHttpProtocolOptions
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.clusters.aggregate.v3 import ClusterConfig
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 import (
    LeastRequest,
    LeastRequestSelectionMethod,
)
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsUseDownstreamHttpConfig,
)
from envoy_data_plane.google.protobuf import Any, Struct, Value

from controller.api.contract.route import ReplicaCheck, RouteKey
from controller.api.kubernetes.endpoints import Replica, usable
from controller.api.timing import GatewayTiming
from xds_server.resources import names
from xds_server.resources.checks import replica_check, sockets_of_check
from xds_server.resources.encoding import ADS, encoded, extension, packed, resource
from xds_server.resources.original_request import restoring_filter
from xds_server.snapshot.snapshot import Resource

# Trap 8: a request larger than the buffer cannot be sent again.
BUFFER_LIMIT_BYTES = 4 * 1024 * 1024

# What else waits for somebody who does not read: an answer, or a request to a server that is busy. Each connection has
# it on both sides, and needs no more than what is on its way.
CONNECTION_BUFFER_BYTES = 256 * 1024

# Trap 17: the calls of all clients share a few HTTP/2 connections, and what a stream whose reader rests has sent counts
# against its connection. By default that is 16 of 24 MiB: two such streams stop everybody else's. A stream that is read
# gets a new window as it goes. It is as large as the buffer: of a stream, Envoy keeps no more for its retry.
HTTP2 = Http2ProtocolOptions(
    initial_stream_window_size=BUFFER_LIMIT_BYTES, initial_connection_window_size=128 * BUFFER_LIMIT_BYTES
)

# With the default of 140 one bad replica of three sends a third of the traffic to the next priority.
OVERPROVISIONING_FACTOR = 100_000

# Trap 1: the default is three concurrent retries; what is above it fails under load without a word. Overload is the
# business of the split, not of a circuit breaker (trap 9: a tripped one does not fail over).
_NO_BREAKER = CircuitBreakers(
    thresholds=[
        CircuitBreakersThresholds(
            max_connections=1_000_000,
            max_pending_requests=1_000_000,
            max_requests=1_000_000,
            max_retries=1_000_000,
        )
    ]
)

CLUSTER_DEFAULTS = encoded(
    Cluster(per_connection_buffer_limit_bytes=CONNECTION_BUFFER_BYTES, circuit_breakers=_NO_BREAKER),
)

# What becomes of a host is otherwise held back for up to a second to be told in one go: as long as an ejection lasts.
# The panic threshold stays as it is: with the overprovisioning factor, Envoy panics only when nothing is believed to
# work, and then it is right to try everything (docs/adr/0006).
_NO_MERGE_WINDOW = ClusterCommonLbConfig(update_merge_window=timedelta(0))

# Nothing is connected to: the next hop is in the same Envoy.
_CONNECT_INSIDE = timedelta(milliseconds=250)

# Trap 4: by default a tenth of the hosts may be ejected, so pools under ten never eject. Only what cannot be a matter
# of one request counts: connections that fail, and gateway errors one after another. How long is in `GatewayTiming`.
_OUTLIERS = OutlierDetection(
    max_ejection_percent=100,
    split_external_local_origin_errors=True,
    # With `firstByteTimeout`, an answer that does not begin in time counts like a connection that fails (Envoy,
    # "Outlier detection", "Locally originated failures"). Two slow answers in a row are no outlier; a replica that
    # hangs has more than that. It is so without it too, or a change of it would be one of the cluster.
    consecutive_local_origin_failure=5,
    consecutive_gateway_failure=3,
    enforcing_consecutive_gateway_failure=100,
    enforcing_consecutive_5xx=0,
    enforcing_success_rate=0,
    enforcing_local_origin_success_rate=0,
    # Or the next health check takes an ejection back, which knows nothing of requests: within a second, each time.
    successful_active_health_check_uneject_host=False,
)

# The remote side is believed well as long as nothing says otherwise, and Envoy tries everything only when nothing is
# believed to work (docs/adr/0006). Five failures in a row say otherwise, for a moment: a remote backend that fails now
# and then is asked all the same for what leaves, and so is one that takes longer than `firstByteTimeout`.
_REMOTE_OUTLIERS = replace(_OUTLIERS, consecutive_gateway_failure=5, enforcing_consecutive_local_origin_failure=0)

# How many sets of headers are remembered with the cluster that restores them; most routes change the same.
_REMEMBERED_HEADERS = 256

# How many sets of times are remembered with what is written by them; a process has one.
_REMEMBERED_TIMES = 4


def same_protocol_as_client(*upstream_filters: HttpFilter, unused: float | None = None) -> dict[str, Any]:
    """Build the options of a cluster that is spoken to as the client speaks, through some upstream filters.

    Trap 13: gRPC needs HTTP/2 upstream where the client speaks it, or its status is lost. A connection that nothing was
    asked on for `unused` seconds is closed (trap 19).
    """
    codec = HttpFilter(name="envoy.filters.http.upstream_codec", typed_config=packed(UpstreamCodec()))
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(
            HttpProtocolOptions(
                common_http_protocol_options=(
                    CommonHttpProtocolOptions(idle_timeout=timedelta(seconds=unused)) if unused else None
                ),
                use_downstream_protocol_config=HttpProtocolOptionsUseDownstreamHttpConfig(
                    http_protocol_options=Http1ProtocolOptions(), http2_protocol_options=HTTP2
                ),
                http_filters=[*upstream_filters, codec] if upstream_filters else [],
            )
        )
    }


def _checked(method: LeastRequestSelectionMethod) -> bytes:
    least_request = extension("least_request", LeastRequest(selection_method=method))
    return CLUSTER_DEFAULTS + encoded(
        Cluster(
            # Trap 5: or a removed host gets traffic until its health check fails.
            ignore_health_on_host_removal=True,
            common_lb_config=_NO_MERGE_WINDOW,
            load_balancing_policy=LoadBalancingPolicy(
                policies=[LoadBalancingPolicyPolicy(typed_extension_config=least_request)]
            ),
        )
    )


# What a cluster has whose hosts are checked: of two hosts by chance, the one with fewer requests is asked.
PICK_OF_TWO = _checked(LeastRequestSelectionMethod.N_CHOICES)

# The same, but the one with the fewest of all: by chance alone one host gets more than its share of a limit.
PICK_LEAST = _checked(LeastRequestSelectionMethod.FULL_SCAN)

_AGGREGATE = CLUSTER_DEFAULTS + encoded(
    Cluster(
        lb_policy=ClusterLbPolicy.CLUSTER_PROVIDED,
        connect_timeout=_CONNECT_INSIDE,
        typed_extension_protocol_options=same_protocol_as_client(),
    )
)


def socket_address(host: str, port: int) -> Address:
    """Build the address of a host, by its name or number."""
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def listening_address(host: str, port: int) -> Address:
    """Build the address that a listener binds; `::` is every address of both families (`SocketAddress.ipv4_compat`)."""
    is_both = host == "::"
    return Address(socket_address=SocketAddress(address=host, port_value=port, ipv4_compat=is_both))


def side_metadata(side: str) -> Metadata:
    """Build the metadata of an endpoint by which an answer of it names its side."""
    named = Struct(fields={names.METADATA_KEY: Value(string_value=side)})
    return Metadata(filter_metadata={names.METADATA_NAMESPACE: named})


def load_assignment(cluster: str, replicas: tuple[Replica, ...], check: ReplicaCheck | None = None) -> bytes:
    """Serialise the ClusterLoadAssignment of the replicas that may be sent to, with where each is checked.

    Those are the ready ones, or else those that still answer while they terminate. The latter come behind the remote
    backends as well, by the split: to the controller, no replica is ready.

    It is written with the protobuf runtime: of all messages this one changes most often.
    """
    assignment = endpoint_pb2.ClusterLoadAssignment(cluster_name=cluster)
    assignment.policy.overprovisioning_factor.value = OVERPROVISIONING_FACTOR
    side = assignment.endpoints.add()
    for replica in usable(replicas):
        endpoint = side.lb_endpoints.add(metadata=_LOCAL_METADATA)
        address = endpoint.endpoint.address.socket_address
        address.address, address.port_value = replica.address, replica.port
        if check is None:
            continue
        if check.port:
            endpoint.endpoint.health_check_config.port_value = check.port
        if (check.path or check.grpc_service is not None) and not check.host:
            # As the kubelet: the Host of its request, of a gRPC call the :authority, is the address that it asks.
            host = f"[{replica.address}]" if ":" in replica.address else replica.address
            endpoint.endpoint.health_check_config.hostname = f"{host}:{check.port or replica.port}"
    return bytes(assignment.SerializeToString(deterministic=True))


_LOCAL_METADATA = base_pb2.Metadata.FromString(encoded(side_metadata(names.LOCAL)))


def aggregate_cluster(name: str, clusters: Sequence[str], metadata: Metadata | None = None) -> Resource:
    """Build the cluster that goes to the first of some others, and to the next if that has nobody, or for a retry.

    What is in flight is counted by the one that has it (Envoy, "Aggregate cluster"). What upstream filters and limits
    there are is by this one.
    """
    cluster_type = ClusterCustomClusterType(
        name="envoy.clusters.aggregate", typed_config=packed(ClusterConfig(clusters=list(clusters)))
    )
    return resource(name, Cluster(name=name, cluster_type=cluster_type, metadata=metadata), common=_AGGREGATE)


class Clusters:
    """Builds the clusters whose settings depend on the times of one scope, which are written once."""

    def __init__(self, timing: GatewayTiming) -> None:
        self._timing = timing
        self._replicas = _replicas(timing)
        self._to_remote = _remote(timing)

    def local(self, key: RouteKey, check: ReplicaCheck | None, shared_by: int, *, is_alone: bool) -> Resource:
        """Build the cluster of the replicas, discovered over EDS, and checked with `check` or by connecting to them.

        So many Envoys share the checks. It is the same whatever else is asked of the route: a cluster that changes has
        nothing in flight again, as Envoy counts it. But one that has no remote behind it is alone, and then a retry has
        to find another replica: the one with the fewest requests may be the one that fails them, and it would be that
        one each time.
        """
        name = names.local_cluster(key)
        cluster = Cluster(
            name=name,
            health_checks=[replica_check(check, self._timing, shared_by)],
            transport_socket_matches=sockets_of_check(check),
        )
        return resource(name, cluster, common=self._replicas + (PICK_OF_TWO if is_alone else PICK_LEAST))

    def remote(self, key: RouteKey, remote: str) -> Resource:
        """Build the cluster that passes a request as it is to the internal listener in front of a remote backend."""
        endpoint = LbEndpoint(endpoint=_internal(names.remote_listener(key, remote)), metadata=side_metadata(remote))
        return resource(*_static(names.remote_cluster(key, remote), endpoint), common=self._to_remote)

    def fallback(self, key: RouteKey, remote: str, headers: tuple[str, ...]) -> Resource:
        """Build the cluster that restores `headers` of a request, and passes it to the internal listener that is next.

        It is the second choice of a request that was sent to the remote backend `remote` directly.
        """
        endpoint = LbEndpoint(endpoint=_internal(names.local_listener(key)))
        return resource(*_static(names.fallback_cluster(key, remote), endpoint), common=_restoring(headers))


@lru_cache(_REMEMBERED_TIMES)
def _replicas(timing: GatewayTiming) -> bytes:
    outliers = replace(
        _OUTLIERS,
        interval=timedelta(seconds=timing.outliers_every),
        base_ejection_time=timedelta(seconds=timing.first_ejection),
        max_ejection_time=timedelta(seconds=timing.longest_ejection),
    )
    return encoded(
        Cluster(
            type=ClusterDiscoveryType.EDS,
            eds_cluster_config=ClusterEdsClusterConfig(eds_config=ADS),
            connect_timeout=timedelta(seconds=timing.connect_near),
            typed_extension_protocol_options=same_protocol_as_client(unused=timing.unused_near),
            outlier_detection=outliers,
        )
    )


@lru_cache(_REMEMBERED_TIMES)
def _remote(timing: GatewayTiming) -> bytes:
    not_believed = timedelta(seconds=timing.remote_not_believed)
    outliers = replace(
        _REMOTE_OUTLIERS,
        interval=timedelta(seconds=timing.outliers_every),
        base_ejection_time=not_believed,
        max_ejection_time=not_believed,
    )
    return _to_listener() + encoded(Cluster(common_lb_config=_NO_MERGE_WINDOW, outlier_detection=outliers))


@lru_cache(_REMEMBERED_HEADERS)
def _restoring(headers: tuple[str, ...]) -> bytes:
    return _to_listener(HttpFilter(name="restored", typed_config=packed(restoring_filter(headers))))


def _to_listener(*upstream_filters: HttpFilter) -> bytes:
    return CLUSTER_DEFAULTS + encoded(
        Cluster(
            type=ClusterDiscoveryType.STATIC,
            connect_timeout=_CONNECT_INSIDE,
            typed_extension_protocol_options=same_protocol_as_client(*upstream_filters),
        )
    )


def _static(name: str, endpoint: LbEndpoint) -> tuple[str, Cluster]:
    sides = [LocalityLbEndpoints(lb_endpoints=[endpoint])]
    return name, Cluster(name=name, load_assignment=ClusterLoadAssignment(cluster_name=name, endpoints=sides))


def _internal(listener: str) -> Endpoint:
    return Endpoint(
        address=Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name=listener)),
    )
