"""The cluster of a remote backend."""

from __future__ import annotations

from datetime import timedelta

from envoy_data_plane.envoy.config.cluster.v3 import Cluster, ClusterDiscoveryType, ClusterDnsLookupFamily
from envoy_data_plane.envoy.config.core.v3 import Address, Locality, Metadata, SocketAddress
from envoy_data_plane.envoy.config.endpoint.v3 import (
    ClusterLoadAssignment,
    ClusterLoadAssignmentPolicy,
    Endpoint,
    EndpointHealthCheckConfig,
    LbEndpoint,
    LocalityLbEndpoints,
)
from envoy_data_plane.google.protobuf import Struct, Value

from controller.api.route import HttpCheck, RemoteRoute
from xds_server.resources import names
from xds_server.resources.packing import OVERPROVISIONING_FACTOR, resource
from xds_server.resources.upstream import CHECKED, health_check
from xds_server.snapshot.snapshot import Resource


def backend_cluster(name: str, remote: RemoteRoute) -> Resource:
    """Build the cluster of a remote backend: found by DNS, one connection pool for all models that use it.

    Envoy does not retry what it could send to nobody ("no healthy upstream"). So behind the remote backend stands an
    address that refuses at once, and a refused request is sent again: to the replicas. Outliers are not ejected here,
    since the address that refuses would be the first of them.
    """
    there = LbEndpoint(
        endpoint=Endpoint(
            address=_socket(remote.host, remote.port),
            hostname=remote.authority,
            health_check_config=EndpointHealthCheckConfig(hostname=remote.authority),
        ),
        metadata=_answered_by_remote(),
    )
    nowhere = LbEndpoint(
        endpoint=Endpoint(
            address=_socket("127.0.0.1", 1),
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
                LocalityLbEndpoints(
                    priority=priority,
                    locality=Locality(zone=names.REMOTE),
                    lb_endpoints=[endpoint],
                )
                for priority, endpoint in enumerate((there, nowhere))
            ],
            policy=ClusterLoadAssignmentPolicy(overprovisioning_factor=OVERPROVISIONING_FACTOR),
        ),
        connect_timeout=timedelta(seconds=2),
        health_checks=[health_check(remote.health_check or HttpCheck(path="", interval=timedelta(seconds=5)))],
    )
    return resource(name, cluster, common=CHECKED)


def _socket(host: str, port: int) -> Address:
    return Address(socket_address=SocketAddress(address=host, port_value=port))


def _answered_by_remote() -> Metadata:
    said = Struct(fields={names.METADATA_KEY: Value(string_value=names.REMOTE)})
    return Metadata(filter_metadata={names.METADATA_NAMESPACE: said})
