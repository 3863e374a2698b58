"""The clusters of one model, and the cluster of a remote backend."""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    ClusterDiscoveryType,
    ClusterDnsLookupFamily,
    ClusterEdsClusterConfig,
    LoadBalancingPolicy,
    LoadBalancingPolicyPolicy,
    OutlierDetection,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    EnvoyInternalAddress,
    HealthCheck,
    HealthCheckHttpHealthCheck,
    HealthCheckTcpHealthCheck,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    Locality,
    Metadata,
    SocketAddress,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    ClusterLoadAssignmentPolicy,
    Endpoint,
    EndpointHealthCheckConfig,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.filters.http.upstream_codec.v3 import UpstreamCodec
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 import LeastRequest
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsUseDownstreamHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import Percent
from envoy_data_plane.google.protobuf import Any, Struct, Value

from controller.api.route import HttpCheck, RemoteRoute
from xds_server.resources import names
from xds_server.resources.packing import ADS, OVERPROVISIONING_FACTOR, extension, packed
from xds_server.resources.saved import restoring

# Trap 8: a request larger than the buffer cannot be sent again.
BUFFER_LIMIT_BYTES = 4 * 1024 * 1024

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

# Trap 4: by default a tenth of the hosts may be ejected, so pools under ten never eject. Only what cannot be a matter
# of one request counts: connections that fail, and gateway errors one after another.
_OUTLIERS = OutlierDetection(
    max_ejection_percent=100,
    split_external_local_origin_errors=True,
    consecutive_local_origin_failure=2,
    consecutive_gateway_failure=3,
    enforcing_consecutive_gateway_failure=100,
    enforcing_consecutive_5xx=0,
    enforcing_success_rate=0,
    enforcing_local_origin_success_rate=0,
    interval=timedelta(milliseconds=500),
    base_ejection_time=timedelta(seconds=1),
    max_ejection_time=timedelta(seconds=2),
)


# Trap 13: gRPC needs HTTP/2 upstream where the client speaks it, or its status is lost.
def _same_protocol_as_client(*upstream_filters: HttpFilter) -> dict[str, Any]:
    codec = HttpFilter(name="envoy.filters.http.upstream_codec", typed_config=packed(UpstreamCodec()))
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(
            HttpProtocolOptions(
                use_downstream_protocol_config=HttpProtocolOptionsUseDownstreamHttpConfig(
                    http_protocol_options=Http1ProtocolOptions(), http2_protocol_options=Http2ProtocolOptions()
                ),
                http_filters=[*upstream_filters, codec] if upstream_filters else [],
            )
        )
    }


_LEAST_REQUEST = LoadBalancingPolicy(
    policies=[LoadBalancingPolicyPolicy(typed_extension_config=extension("least_request", LeastRequest()))]
)

# Trap 4: with a panic threshold a pool whose hosts are mostly down is used as if all were up; and what becomes of a
# host is otherwise held back for up to a second to be told in one go, which is as long as an ejection lasts.
_HEALTH_COUNTS = ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0), update_merge_window=timedelta(0))


def local_cluster(name: str, check: HttpCheck | None) -> Cluster:
    """Build the cluster of a model's replicas; they, and what comes after them, are told over EDS.

    Replicas are checked with `check`, or by connecting to them. The internal address of the remote side is not: its
    endpoint says so.
    """
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.EDS,
        eds_cluster_config=ClusterEdsClusterConfig(eds_config=ADS),
        connect_timeout=timedelta(milliseconds=250),
        per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        circuit_breakers=_NO_BREAKER,
        outlier_detection=_OUTLIERS,
        health_checks=[_health_check(check or HttpCheck(path="", interval=timedelta(seconds=1)))],
        # Trap 5: or a removed pod gets traffic until its health check fails.
        ignore_health_on_host_removal=True,
        common_lb_config=_HEALTH_COUNTS,
        load_balancing_policy=_LEAST_REQUEST,
        typed_extension_protocol_options=_same_protocol_as_client(),
    )


def fallback_cluster(name: str, listener: str, headers: tuple[str, ...]) -> Cluster:
    """Build the cluster that gives `headers` back to a request and hands it to the internal listener `listener`."""
    restored = HttpFilter(name="restored", typed_config=packed(restoring(headers)))
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STATIC,
        load_assignment=ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[LocalityLbEndpoints(lb_endpoints=[LbEndpoint(endpoint=_internal(listener))])],
        ),
        connect_timeout=timedelta(milliseconds=250),
        per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        circuit_breakers=_NO_BREAKER,
        typed_extension_protocol_options=_same_protocol_as_client(restored),
    )


def backend_cluster(name: str, remote: RemoteRoute) -> Cluster:
    """Build the cluster of a remote backend: found by DNS, one connection pool for all models that use it.

    Envoy does not retry what it could send to nobody ("no healthy upstream"). So behind the remote backend stands an
    address that refuses at once, and a refused request is sent again: to the replicas. Outliers are not ejected here,
    since the address that refuses would be the first of them.
    """
    there = Endpoint(
        address=_socket(remote.host, remote.port),
        hostname=remote.authority,
        health_check_config=EndpointHealthCheckConfig(hostname=remote.authority),
    )
    nowhere = Endpoint(
        address=_socket("127.0.0.1", 1), health_check_config=EndpointHealthCheckConfig(disable_active_health_check=True)
    )
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        load_assignment=ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[
                LocalityLbEndpoints(
                    priority=priority,
                    locality=Locality(zone=names.REMOTE),
                    lb_endpoints=[LbEndpoint(endpoint=endpoint, metadata=_answered_by_remote())],
                )
                for priority, endpoint in enumerate((there, nowhere))
            ],
            policy=ClusterLoadAssignmentPolicy(overprovisioning_factor=OVERPROVISIONING_FACTOR),
        ),
        connect_timeout=timedelta(seconds=2),
        per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        circuit_breakers=_NO_BREAKER,
        health_checks=[_health_check(remote.health_check or HttpCheck(path="", interval=timedelta(seconds=5)))],
        ignore_health_on_host_removal=True,
        common_lb_config=_HEALTH_COUNTS,
        load_balancing_policy=_LEAST_REQUEST,
        typed_extension_protocol_options=_same_protocol_as_client(),
    )


def _socket(host: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def _internal(listener: str) -> Endpoint:
    return Endpoint(
        address=Address(envoy_internal_address=EnvoyInternalAddress(server_listener_name=listener)),
    )


def _answered_by_remote() -> Metadata:
    said = Struct(fields={names.METADATA_KEY: Value(string_value=names.REMOTE)})
    return Metadata(filter_metadata={names.METADATA_NAMESPACE: said})


def _health_check(check: HttpCheck) -> HealthCheck:
    """Build a health check; without a path it connects, no more."""
    http = HealthCheckHttpHealthCheck(path=check.path, host="localhost") if check.path else None
    return HealthCheck(
        timeout=min(check.interval, timedelta(seconds=1)) / 2,
        interval=check.interval,
        unhealthy_interval=check.interval,
        # Trap 5: a standby that gets no traffic is otherwise checked once a minute.
        no_traffic_interval=check.interval,
        unhealthy_threshold=2,
        healthy_threshold=1,
        # Trap 5: the default host is the cluster's name, whose "/" some servers refuse. An endpoint's own goes first.
        http_health_check=http,
        tcp_health_check=None if http else HealthCheckTcpHealthCheck(),
    )
