"""The endpoints of the clusters of one model, written with the protobuf runtime: these change most often."""

from __future__ import annotations

from envoy.config.core.v3.base_pb2 import Locality, Metadata
from envoy.config.endpoint.v3.endpoint_components_pb2 import LbEndpoint, LocalityLbEndpoints
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from controller.api.endpoints import Replica
from xds_server.resources import names
from xds_server.resources.names import LOCAL, REMOTE
from xds_server.resources.packing import OVERPROVISIONING_FACTOR


def load_assignment(cluster: str, sides: tuple[LocalityLbEndpoints, ...]) -> bytes:
    """Serialise a ClusterLoadAssignment that tries the sides in the order given: the first is priority 0."""
    assignment = ClusterLoadAssignment(cluster_name=cluster)
    assignment.policy.overprovisioning_factor.value = OVERPROVISIONING_FACTOR
    for priority, side in enumerate(sides):
        added = assignment.endpoints.add()
        added.CopyFrom(side)
        added.priority = priority
    return bytes(assignment.SerializeToString(deterministic=True))


def local_side(replicas: tuple[Replica, ...]) -> LocalityLbEndpoints:
    """Build the side of the replicas that are ready."""
    side = _side(LOCAL)
    for replica in replicas:
        if not replica.ready:
            continue
        endpoint = side.lb_endpoints.add(metadata=_answered_by(LOCAL))
        address = endpoint.endpoint.address.socket_address
        address.address, address.port_value = replica.address, replica.port
    return side


def remote_side(listener: str) -> LocalityLbEndpoints:
    """Build the side of the remote backend: the internal listener in front of it."""
    endpoint = LbEndpoint(metadata=_answered_by(REMOTE))
    endpoint.endpoint.address.envoy_internal_address.server_listener_name = listener
    # Trap 5: the check of the replicas means nothing to an internal listener.
    endpoint.endpoint.health_check_config.disable_active_health_check = True
    side = _side(REMOTE)
    side.lb_endpoints.append(endpoint)
    return side


def _side(zone: str) -> LocalityLbEndpoints:
    side = LocalityLbEndpoints(locality=Locality(zone=zone))
    side.load_balancing_weight.value = 1
    return side


def _answered_by(side: str) -> Metadata:
    metadata = Metadata()
    metadata.filter_metadata[names.METADATA_NAMESPACE].update({names.METADATA_KEY: side})
    return metadata
