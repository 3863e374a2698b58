"""The cluster of a remote backend."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, ClusterDnsLookupFamily
from envoy_data_plane.envoy.config.common.mutation_rules.v3 import HeaderMutation, HeaderMutationRemoveOnMatch
from envoy_data_plane.envoy.config.core.v3 import HealthCheck, HealthCheckTlsOptions
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    ClusterLoadAssignmentPolicy,
    Endpoint,
    EndpointHealthCheckConfig,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import HeaderMutation as HeaderMutationFilter
from envoy_data_plane.envoy.extensions.filters.http.header_mutation.v3 import Mutations
from envoy_data_plane.envoy.extensions.filters.network.http_connection_manager.v3 import HttpFilter
from envoy_data_plane.envoy.type.matcher.v3 import RegexMatcher, StringMatcher

from controller.api.contract.route import REMOTE, HttpCheck, Remote
from controller.api.timing import GatewayTiming
from xds_server.resources.credential import injector
from xds_server.resources.packing import OVERPROVISIONING_FACTOR, packed, resource
from xds_server.resources.secret import SecretNames
from xds_server.resources.tls import upstream_tls
from xds_server.resources.upstream import CHECKED, answered_by, health_check, same_protocol_as_client, socket_address
from xds_server.snapshot.snapshot import Resource

# What of a client's headers stays inside could leave in its trailers, which no route touches. Those of HTTP/1.1 are
# dropped on all ways; gRPC has none in a request.
_ALL = HeaderMutationRemoveOnMatch(key_matcher=StringMatcher(safe_regex=RegexMatcher(regex=".*")))
_NO_TRAILERS = Mutations(request_trailers_mutations=[HeaderMutation(remove_on_match=_ALL)])
_WITHOUT_TRAILERS = HttpFilter(
    name="envoy.filters.http.header_mutation", typed_config=packed(HeaderMutationFilter(mutations=_NO_TRAILERS))
)


def backend_cluster(
    name: str, remote: Remote, secrets: SecretNames, system_authorities: str, timing: GatewayTiming
) -> Resource:
    """Build the cluster of a remote backend: found by DNS, one connection pool for all models that use it.

    With TLS a host is healthy only if its certificate is as it should be, so a check that merely connects tells that.

    Envoy does not retry what it could send to nobody ("no healthy upstream"). So behind the remote backend stands an
    address that refuses at once, and a refused request is sent again: to the replicas. Outliers are not ejected here,
    since the address that refuses would be the first of them.
    """
    there = LbEndpoint(
        endpoint=Endpoint(
            address=socket_address(remote.host, remote.port),
            hostname=remote.authority,
            health_check_config=EndpointHealthCheckConfig(hostname=remote.authority),
        ),
        metadata=answered_by(REMOTE),
    )
    nowhere = LbEndpoint(
        endpoint=Endpoint(
            address=socket_address("127.0.0.1", 1),
            health_check_config=EndpointHealthCheckConfig(disable_active_health_check=True),
        )
    )
    cluster = Cluster(
        name=name,
        type=ClusterDiscoveryType.STRICT_DNS,
        dns_lookup_family=ClusterDnsLookupFamily.V4_PREFERRED,
        load_assignment=ClusterLoadAssignment(
            cluster_name=name,
            endpoints=[
                LocalityLbEndpoints(priority=priority, lb_endpoints=[endpoint])
                for priority, endpoint in enumerate((there, nowhere))
            ],
            policy=ClusterLoadAssignmentPolicy(overprovisioning_factor=OVERPROVISIONING_FACTOR),
        ),
        connect_timeout=remote.connect_timeout or timedelta(seconds=timing.connect_far),
        health_checks=[_check(remote, timing)],
        transport_socket=(
            upstream_tls(remote.tls.server_name, system_authorities, secrets.authorities, secrets.certificate)
            if remote.tls
            else None
        ),
        typed_extension_protocol_options=same_protocol_as_client(
            *([injector(remote.auth, secrets.credential, timing)] if remote.auth and secrets.credential else []),
            _WITHOUT_TRAILERS,
        ),
    )
    return resource(name, cluster, secrets.keys, common=CHECKED)


def check_timeout(remote: Remote, connect: float, longest: float) -> timedelta:
    """Return how long a check may take to connect, TLS included, and to get its answer: as long as a connection may.

    A replica is near and has half a second. A backend that is far away needs that for TLS alone.
    """
    return min(remote.connect_timeout or timedelta(seconds=connect), timedelta(seconds=longest))


def _check(remote: Remote, timing: GatewayTiming) -> HealthCheck:
    usual = HttpCheck(path="", interval=timedelta(seconds=timing.check_far_every))
    check = replace(
        health_check(remote.health_check or usual, timedelta(seconds=timing.check_again_within)),
        timeout=check_timeout(remote, timing.connect_far, timing.longest_check),
    )
    # What is spoken to check it; a server that may choose could choose HTTP/2.
    return replace(check, tls_options=HealthCheckTlsOptions(alpn_protocols=["http/1.1"])) if remote.tls else check
