"""What the clusters have in common."""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import (
    CircuitBreakers,
    CircuitBreakersThresholds,
    Cluster,
    ClusterCommonLbConfig,
    LoadBalancingPolicy,
    LoadBalancingPolicyPolicy,
)
from envoy_data_plane.envoy.config.core.v3 import (
    Address,
    HealthCheck,
    HealthCheckHttpHealthCheck,
    HealthCheckTcpHealthCheck,
    Http1ProtocolOptions,
    Http2ProtocolOptions,
    Metadata,
    SocketAddress,
)
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

from controller.api.contract.route import HttpCheck
from xds_server.resources import names
from xds_server.resources.packing import extension, packed

# Trap 8: a request larger than the buffer cannot be sent again.
BUFFER_LIMIT_BYTES = 4 * 1024 * 1024

# Trap 17: the calls of all clients share a few HTTP/2 connections, and what a stream whose reader rests has sent counts
# against its connection. By default that is 16 of 24 MiB: two such streams stop everybody else's. A stream that is read
# gets a new window as it goes. It is as large as the buffer: of a stream, Envoy keeps no more for its retry.
HTTP2 = Http2ProtocolOptions(
    initial_stream_window_size=BUFFER_LIMIT_BYTES, initial_connection_window_size=128 * BUFFER_LIMIT_BYTES
)

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


def _least_request(method: LeastRequestSelectionMethod) -> LoadBalancingPolicy:
    least = extension("least_request", LeastRequest(selection_method=method))
    return LoadBalancingPolicy(policies=[LoadBalancingPolicyPolicy(typed_extension_config=least)])


# What becomes of a host is otherwise held back for up to a second to be told in one go: as long as an ejection lasts.
# The panic threshold stays as it is: with the overprovisioning factor, Envoy panics only when nothing is believed to
# work, and then it is right to try everything (docs/adr/0006).
TOLD_AT_ONCE = ClusterCommonLbConfig(update_merge_window=timedelta(0))


def same_protocol_as_client(*upstream_filters: HttpFilter) -> dict[str, Any]:
    """Build the options of a cluster that is spoken to as the client speaks, through some upstream filters.

    Trap 13: gRPC needs HTTP/2 upstream where the client speaks it, or its status is lost.
    """
    codec = HttpFilter(name="envoy.filters.http.upstream_codec", typed_config=packed(UpstreamCodec()))
    return {
        "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": packed(
            HttpProtocolOptions(
                use_downstream_protocol_config=HttpProtocolOptionsUseDownstreamHttpConfig(
                    http_protocol_options=Http1ProtocolOptions(), http2_protocol_options=HTTP2
                ),
                http_filters=[*upstream_filters, codec] if upstream_filters else [],
            )
        )
    }


# What every cluster has.
EVERY = bytes(Cluster(per_connection_buffer_limit_bytes=BUFFER_LIMIT_BYTES, circuit_breakers=_NO_BREAKER))


def _checked(method: LeastRequestSelectionMethod) -> bytes:
    return EVERY + bytes(
        Cluster(
            # Trap 5: or a removed host gets traffic until its health check fails.
            ignore_health_on_host_removal=True,
            common_lb_config=TOLD_AT_ONCE,
            load_balancing_policy=_least_request(method),
            typed_extension_protocol_options=same_protocol_as_client(),
        )
    )


# What every cluster that is checked has: of two hosts by chance, the one with fewer requests is asked.
CHECKED = _checked(LeastRequestSelectionMethod.N_CHOICES)

# The same, but the one with the fewest of all: by chance alone one host gets more than its share of a limit.
CHECKED_EVENLY = _checked(LeastRequestSelectionMethod.FULL_SCAN)


def health_check(check: HttpCheck, again_within: timedelta) -> HealthCheck:
    """Build a health check; without a path it connects, no more. What is down is checked again in `again_within`."""
    http = HealthCheckHttpHealthCheck(path=check.path, host="localhost") if check.path else None
    return HealthCheck(
        timeout=min(check.interval, again_within) / 2,
        interval=check.interval,
        # One that came back is wanted soon, however rarely it is checked while it is well.
        unhealthy_interval=min(check.interval, again_within),
        # Trap 5: a standby that gets no traffic is otherwise checked once a minute.
        no_traffic_interval=check.interval,
        unhealthy_threshold=2,
        healthy_threshold=1,
        # Trap 5: the default host is the cluster's name, whose "/" some servers refuse. An endpoint's own goes first.
        http_health_check=http,
        tcp_health_check=None if http else HealthCheckTcpHealthCheck(),
    )


def socket_address(host: str, port: int) -> Address:
    """Build the address of a host, by its name or number."""
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def answered_by(side: str) -> Metadata:
    """Build the metadata of an endpoint by which an answer of it names its side."""
    said = Struct(fields={names.METADATA_KEY: Value(string_value=side)})
    return Metadata(filter_metadata={names.METADATA_NAMESPACE: said})
