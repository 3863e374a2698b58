"""Between the bytes of gRPC messages and the values of a session. Only this and `load_wire` know Envoy's messages."""

from __future__ import annotations

from dataclasses import dataclass, field

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError

from xds_server.snapshot.snapshot import Resource
from xds_server.stream.protocol.messages import DeltaRequest, ProtocolError, Response, SotwRequest

TOKEN_FIELD = "beamlit_token"
NOT_FOUND = 5  # google.rpc.Code


class MalformedRequestError(ProtocolError):
    """The bytes are no discovery request."""


@dataclass(frozen=True, slots=True)
class Node:
    """Who a client says it is. The token proves that it may see secrets; it is never printed."""

    id: str = ""
    cluster: str = ""
    user_agent: str = ""
    user_agent_version: str = ""
    token: str = field(default="", repr=False)


def parse_delta(raw: bytes) -> tuple[Node, DeltaRequest]:
    """Parse a DeltaDiscoveryRequest. Raises MalformedRequestError."""
    message = _parsed(discovery_pb2.DeltaDiscoveryRequest, raw)
    return node_of(message.node), DeltaRequest(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        claimed=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=_error(message),
    )


def parse_sotw(raw: bytes) -> tuple[Node, SotwRequest]:
    """Parse a DiscoveryRequest. Raises MalformedRequestError."""
    message = _parsed(discovery_pb2.DiscoveryRequest, raw)
    return node_of(message.node), SotwRequest(
        type_url=message.type_url,
        names=tuple(message.resource_names),
        version=message.version_info,
        nonce=message.response_nonce,
        error=_error(message),
    )


def pack_delta(response: Response, identifier: str) -> bytes:
    """Serialise a DeltaDiscoveryResponse; `identifier` names this control plane (X07)."""
    message = discovery_pb2.DeltaDiscoveryResponse(
        system_version_info=response.version,
        type_url=response.type_url,
        nonce=response.nonce,
        removed_resources=response.removed,
    )
    message.control_plane.identifier = identifier
    for resource in response.resources:
        entry = message.resources.add(name=resource.key.name, version=resource.version)
        entry.resource.type_url = response.type_url
        entry.resource.value = resource.body
    packed: bytes = message.SerializeToString()
    return packed


def pack_sotw(response: Response, identifier: str) -> bytes:
    """Serialise a DiscoveryResponse; missing names become resource_errors (X27)."""
    message = discovery_pb2.DiscoveryResponse(
        version_info=response.version, type_url=response.type_url, nonce=response.nonce
    )
    message.control_plane.identifier = identifier
    for resource in response.resources:
        _add_any(message, resource)
    for name in response.missing:
        error = message.resource_errors.add()
        error.resource_name.name = name
        error.error_detail.code = NOT_FOUND
        error.error_detail.message = "no such resource"
    packed: bytes = message.SerializeToString()
    return packed


def _add_any(message: discovery_pb2.DiscoveryResponse, resource: Resource) -> None:
    message.resources.add(type_url=resource.key.type_url, value=resource.body)


def _parsed(kind: type, raw: bytes) -> discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest:
    try:
        return kind.FromString(raw)  # type: ignore[attr-defined]
    except DecodeError:
        raise MalformedRequestError("the message is not a discovery request") from None


def node_of(node: base_pb2.Node) -> Node:
    """Read who a client says it is."""
    token = node.metadata.fields[TOKEN_FIELD].string_value if TOKEN_FIELD in node.metadata.fields else ""
    version = node.user_agent_build_version.version
    numbers = f"{version.major_number}.{version.minor_number}.{version.patch}"
    built = numbers if node.HasField("user_agent_build_version") else node.user_agent_version
    return Node(node.id, node.cluster, node.user_agent_name, built, token)


def _error(message: discovery_pb2.DiscoveryRequest) -> str | None:
    return message.error_detail.message if message.HasField("error_detail") else None
