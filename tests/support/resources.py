"""Resources as text: every message decoded, every `Any` in it too."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

# Imported so that an `Any` that holds one of their messages can be read.
from envoy.config.cluster.v3 import cluster_pb2
from envoy.config.endpoint.v3 import endpoint_pb2
from envoy.config.listener.v3 import listener_pb2
from envoy.config.route.v3 import route_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2 as _  # noqa: F401
from envoy.extensions.filters.http.router.v3 import router_pb2  # noqa: F401
from envoy.extensions.filters.http.set_filter_state.v3 import set_filter_state_pb2  # noqa: F401
from envoy.extensions.filters.http.upstream_codec.v3 import upstream_codec_pb2  # noqa: F401
from envoy.extensions.filters.network.http_connection_manager.v3 import http_connection_manager_pb2  # noqa: F401
from envoy.extensions.http.early_header_mutation.header_mutation.v3 import header_mutation_pb2  # noqa: F401
from envoy.extensions.load_balancing_policies.least_request.v3 import least_request_pb2  # noqa: F401
from envoy.extensions.retry.host.previous_hosts.v3 import previous_hosts_pb2  # noqa: F401
from envoy.extensions.retry.priority.previous_priorities.v3 import previous_priorities_config_pb2  # noqa: F401
from envoy.extensions.upstreams.http.v3 import http_protocol_options_pb2  # noqa: F401
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import Message

from xds_server.snapshot.snapshot import Resource, ResourceKey
from xds_server.snapshot.types import CLUSTER, ENDPOINT, LISTENER, ROUTE

MESSAGES: dict[str, type[Message]] = {
    CLUSTER: cluster_pb2.Cluster,
    ENDPOINT: endpoint_pb2.ClusterLoadAssignment,
    LISTENER: listener_pb2.Listener,
    ROUTE: route_pb2.RouteConfiguration,
}


def message_of(resource: Resource) -> Any:
    """Parse a resource as the protobuf message it is."""
    return MESSAGES[resource.key.type_url].FromString(resource.body)


def decoded(resource: Resource) -> dict[str, Any]:
    """Decode a resource, its fields named as in Envoy's documentation."""
    decoded: dict[str, Any] = json.loads(MessageToJson(message_of(resource), preserving_proto_field_name=True))
    return decoded


def by_key(resources: Iterable[Resource]) -> dict[ResourceKey, Resource]:
    return {one.key: one for one in resources}
