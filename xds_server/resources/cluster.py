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
    HealthCheck,
    HealthCheckHttpHealthCheck,
    HealthCheckTcpHealthCheck,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    SocketAddress,
)
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    Endpoint,
    EndpointHealthCheckConfig,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.load_balancing_policies.least_request.v3 import LeastRequest
from envoy_data_plane.envoy.extensions.upstreams.http.v3 import (
    HttpProtocolOptions,
    HttpProtocolOptionsUseDownstreamHttpConfig,
)
from envoy_data_plane.envoy.type.v3 import Percent

from controller.api.route import HttpCheck, RemoteRoute
from xds_server.resources.packing import ADS, extension, packed

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
_SAME_PROTOCOL_AS_CLIENT = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(
        HttpProtocolOptions(
            use_downstream_protocol_config=HttpProtocolOptionsUseDownstreamHttpConfig(
                http_protocol_options=Http1ProtocolOptions(), http2_protocol_options=Http2ProtocolOptions()
            )
        )
    )
}

_LEAST_REQUEST = LoadBalancingPolicy(
    policies=[LoadBalancingPolicyPolicy(typed_extension_config=extension("least_request", LeastRequest()))]
)

# Trap 4: without it a pool whose hosts are mostly down is used as if all were up.
_NO_PANIC = ClusterCommonLbConfig(healthy_panic_threshold=Percent(value=0))


def model_cluster(name: str, check: HttpCheck | None) -> Cluster:
    """Build a cluster of one model; its endpoints (which side first) come over EDS.

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
        health_checks=[_health_check(check)],
        # Trap 5: or a removed pod gets traffic until its health check fails.
        ignore_health_on_host_removal=True,
        common_lb_config=_NO_PANIC,
        load_balancing_policy=_LEAST_REQUEST,
        typed_extension_protocol_options=_SAME_PROTOCOL_AS_CLIENT,
    )


def backend_cluster(name: str, remote: RemoteRoute) -> Cluster:
    """Build the cluster of a remote backend: found by DNS, one connection pool for all models that use it."""
    return Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        load_assignment=ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[
                LocalityLbEndpoints(
                    lb_endpoints=[
                        LbEndpoint(
                            endpoint=Endpoint(
                                address=Address(
                                    socket_address=SocketAddress(address=remote.host, port_value=remote.port)
                                ),
                                hostname=remote.authority,
                                health_check_config=EndpointHealthCheckConfig(hostname=remote.authority),
                            )
                        )
                    ]
                )
            ],
        ),
        connect_timeout=timedelta(seconds=2),
        per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES,
        circuit_breakers=_NO_BREAKER,
        outlier_detection=_OUTLIERS,
        health_checks=[_health_check(remote.health_check)] if remote.health_check else [],
        ignore_health_on_host_removal=True,
        common_lb_config=_NO_PANIC,
        load_balancing_policy=_LEAST_REQUEST,
        typed_extension_protocol_options=_SAME_PROTOCOL_AS_CLIENT,
    )


def _health_check(check: HttpCheck | None) -> HealthCheck:
    interval = check.interval if check else timedelta(seconds=1)
    return HealthCheck(
        timeout=min(interval, timedelta(seconds=1)) / 2,
        interval=interval,
        unhealthy_interval=interval,
        # Trap 5: a standby that gets no traffic is otherwise checked once a minute.
        no_traffic_interval=interval,
        unhealthy_threshold=2,
        healthy_threshold=1,
        # Trap 5: the default host is the cluster's name, whose "/" some servers refuse. An endpoint's own goes first.
        http_health_check=HealthCheckHttpHealthCheck(path=check.path, host="localhost") if check else None,
        tcp_health_check=None if check else HealthCheckTcpHealthCheck(),
    )
