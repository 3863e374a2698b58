"""The endpoints of the clusters of one model, written with the protobuf runtime: these change most often."""

from __future__ import annotations

from envoy.config.core.v3.base_pb2 import Metadata
from envoy.config.endpoint.v3.endpoint_pb2 import ClusterLoadAssignment

from controller.api.kubernetes.endpoints import Replica
from xds_server.resources import names
from xds_server.resources.packing import OVERPROVISIONING_FACTOR


def load_assignment(cluster: str, replicas: tuple[Replica, ...]) -> bytes:
    """Serialise the ClusterLoadAssignment of the replicas that are ready."""
    assignment = ClusterLoadAssignment(cluster_name=cluster)
    assignment.policy.overprovisioning_factor.value = OVERPROVISIONING_FACTOR
    side = assignment.endpoints.add()
    for replica in replicas:
        if not replica.ready:
            continue
        endpoint = side.lb_endpoints.add(metadata=_ANSWERED_HERE)
        address = endpoint.endpoint.address.socket_address
        address.address, address.port_value = replica.address, replica.port
    return bytes(assignment.SerializeToString(deterministic=True))


def _answered_by(side: str) -> Metadata:
    metadata = Metadata()
    metadata.filter_metadata[names.METADATA_NAMESPACE].update({names.METADATA_KEY: side})
    return metadata


_ANSWERED_HERE = _answered_by(names.LOCAL)
