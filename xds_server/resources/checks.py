"""How Envoy checks the servers of a cluster: remote backends as a model asks for it, replicas as the kubelet does."""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import ClusterTransportSocketMatch
from envoy_data_plane.envoy.config.core.v3 import (
    HeaderValue,
    HeaderValueOption,
    HeaderValueOptionHeaderAppendAction,
    HealthCheck,
    HealthCheckGrpcHealthCheck,
    HealthCheckHttpHealthCheck,
    HealthCheckPayload,
    HealthCheckTcpHealthCheck,
    RequestMethod,
    TransportSocket,
)
from envoy_data_plane.envoy.extensions.transport_sockets.tls.v3 import (
    CommonTlsContext,
    TlsParameters,
    TlsParametersTlsProtocol,
    UpstreamTlsContext,
)
from envoy_data_plane.envoy.type.v3 import CodecClientType, Int64Range
from envoy_data_plane.google.protobuf import Struct, Value

from controller.api.contract.route import Header, HttpCheck, ReplicaCheck
from controller.api.timing import GatewayTiming
from xds_server.resources.encoding import packed

# A client of Envoy's has 1.2 at most unless it is told.
TLS_VERSIONS = TlsParameters(
    tls_minimum_protocol_version=TlsParametersTlsProtocol.TLSv1_2,
    tls_maximum_protocol_version=TlsParametersTlsProtocol.TLSv1_3,
)

_JITTER_PERCENT = 20

# `Probe v1`: what the kubelet takes for success. All else is counted; by default one such answer would be enough.
_SUCCESS = [Int64Range(start=200, end=400)]
_COUNTED = [Int64Range(start=100, end=600)]

_OVER_TLS = Struct(fields={"check": Value(string_value="tls")})


def health_check(check: HttpCheck, again_within: timedelta) -> HealthCheck:
    """Build the check of a remote backend; without a path it connects, no more.

    What is down is checked again in `again_within`.
    """
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


def replica_check(check: ReplicaCheck | None, timing: GatewayTiming, shared_by: int) -> HealthCheck:
    """Build the check of replicas that so many Envoys share: together they ask as often as the kubelet does.

    Envoy is never stricter than the kubelet (docs/adr/0022), which has the last word on who is ready. So a replica is
    used after one success; and after a failure the next check comes no sooner than the kubelet's. Only a replica that
    Envoy does not use, though the kubelet calls it ready, is asked again soon: they together ask it once a second, and
    each of them asks within a period of the probe, or five seconds.
    """
    asked = check or ReplicaCheck(interval=timedelta(seconds=timing.check_near_every))
    interval = asked.interval * shared_by
    again = timedelta(seconds=timing.check_again_within) * shared_by
    soon = min(again, interval, max(asked.interval, timedelta(seconds=timing.check_near_unused_within)))
    without_traffic = timedelta(seconds=timing.check_near_without_traffic_within)
    by_grpc = asked.grpc_service is not None
    exact = by_grpc and asked.failures == 1
    return HealthCheck(
        timeout=asked.timeout + timedelta(seconds=timing.check_near_on_its_way),
        interval=interval,
        unhealthy_interval=soon,
        # Between the first failure and the one that decides.
        unhealthy_edge_interval=interval,
        # While the cluster never had a request, Envoy has this one in place of both above. Trap 5: a minute else.
        no_traffic_interval=max(soon, min(asked.interval, without_traffic)),
        no_traffic_healthy_interval=interval,
        # Or those that began at once go on asking at once. It is added: nobody is in more of a hurry for it.
        interval_jitter_percent=_JITTER_PERCENT,
        unhealthy_threshold=max(asked.failures, 1),
        healthy_threshold=1,
        # As the kubelet does: a server that closes a connection which rests is not one that fails.
        reuse_connection=False,
        transport_socket_match_criteria=_OVER_TLS if asked.tls else None,
        http_health_check=_http(asked) if asked.path else _call(asked) if by_grpc and not exact else None,
        grpc_health_check=HealthCheckGrpcHealthCheck(service_name=asked.grpc_service or "") if exact else None,
        tcp_health_check=None if asked.path or by_grpc else HealthCheckTcpHealthCheck(),
    )


def sockets_of_check(check: ReplicaCheck | None) -> list[ClusterTransportSocketMatch]:
    """List the transport sockets that a cluster has for its check alone: TLS that verifies nobody, as the kubelet's."""
    if check is None or not check.tls:
        return []
    # The kubelet offers HTTP/2 as well; what is checked here is spoken to by HTTP/1.1.
    context = UpstreamTlsContext(
        common_tls_context=CommonTlsContext(tls_params=TLS_VERSIONS, alpn_protocols=["http/1.1"])
    )
    tls = TransportSocket(name="envoy.transport_sockets.tls", typed_config=packed(context))
    return [ClusterTransportSocketMatch(name="check", match=_OVER_TLS, transport_socket=tls)]


def _http(check: ReplicaCheck) -> HealthCheckHttpHealthCheck:
    return HealthCheckHttpHealthCheck(
        path=check.path,
        # Without one, each endpoint has its own (`host_of_check`).
        host=check.host,
        request_headers_to_add=_headers(check.headers),
        expected_statuses=_SUCCESS,
        retriable_statuses=_COUNTED,
    )


def _call(check: ReplicaCheck) -> HealthCheckHttpHealthCheck:
    """Call the gRPC health service, and count whether it is answered at all.

    Envoy's own check by gRPC takes one NOT_SERVING for enough, where the kubelet counts several. So what the service
    says is left to the kubelet: a server that hangs is found.
    """
    service = (check.grpc_service or "").encode()
    # HealthCheckRequest (grpc.health.v1) with its only field, in one frame of gRPC.
    message = b"\x0a" + _varint(len(service)) + service if service else b""
    frame = b"\x00" + len(message).to_bytes(4, "big") + message
    return HealthCheckHttpHealthCheck(
        path="/grpc.health.v1.Health/Check",
        method=RequestMethod.POST,
        codec_client_type=CodecClientType.HTTP2,
        send=HealthCheckPayload(text=frame.hex()),
        request_headers_to_add=_headers(
            (Header(name="content-type", value="application/grpc"), Header(name="te", value="trailers"))
        ),
        expected_statuses=_SUCCESS,
        retriable_statuses=_COUNTED,
    )


def _varint(number: int) -> bytes:
    low, high = number & 0x7F, number >> 7
    return bytes((low | 0x80,)) + _varint(high) if high else bytes((low,))


def _headers(headers: tuple[Header, ...]) -> list[HeaderValueOption]:
    """Add headers to those of a check, the first of a name in place of Envoy's own; "%" would begin a substitution."""
    replace, append = (
        HeaderValueOptionHeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD,
        HeaderValueOptionHeaderAppendAction.APPEND_IF_EXISTS_OR_ADD,
    )
    seen: set[str] = set()
    options = []
    for one in headers:
        value = HeaderValue(key=one.name, value=one.value.replace("%", "%%"))
        options.append(HeaderValueOption(header=value, append_action=append if one.name in seen else replace))
        seen.add(one.name)
    return options
