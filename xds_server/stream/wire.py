"""Between the bytes of discovery messages and the values of a session.

Only this and the `wire` of load reporting know the generated classes of these messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf.message import DecodeError
from google.protobuf.struct_pb2 import Value

from xds_server.snapshot.scope import GATEWAY, Scope, UnknownScopeError
from xds_server.snapshot.snapshot import Resource
from xds_server.stream.limits import LONGEST_WORD, MalformedRequestError, look_through, printable, too_long
from xds_server.stream.protocol.messages import DeltaRequest, ProtocolError, Response, SotwRequest
from xds_server.stream.protocol.parts import Parts, batches

# What the metadata of a node may say.
TOKEN_FIELD = "beamlit_token"
ROLE_FIELD = "role"
NAMESPACE_FIELD = "namespace"

_LONG_KINDS = ("struct_value", "list_value")

NOT_FOUND = 5  # google.rpc.Code

# Of discovery.proto: the lists, by field number.
_DELTA_LISTS = {3: "resource_names_subscribe", 4: "resource_names_unsubscribe", 5: "initial_resource_versions"}
_SOTW_LISTS = {3: "resource_names"}

_MANY_NAMES = 50
"""Names and versions in a request from which on it is worth to look whether it is known."""
_REMEMBERED_BYTES, _REMEMBERED_REQUESTS = 12 << 20, 32
"""Of memory, `_memory_of`; an Envoy that comes back sends one for each type."""
_PACKED_AT_ONCE = 500
"""Resources: some five microseconds each."""
_NAME_BYTES = 150
"""What a name or a version costs beside its bytes: 80 as text, of which short ones have few, and 70 in a message."""


class UnknownRoleError(ProtocolError):
    """A client says that it is something this server has nothing for; the message says what there is."""


@dataclass(frozen=True, slots=True)
class Node:
    """Who a client says it is, and what it may see: `scope`. The token lets it see secrets; it is never printed."""

    id: str = ""
    cluster: str = ""
    user_agent: str = ""
    user_agent_version: str = ""
    token: str = field(default="", repr=False)
    scope: Scope = GATEWAY

    @property
    def is_debug(self) -> bool:
        """Whether the client only reads: it carries no traffic."""
        return not self.id or self.id.startswith("debug/")


NOBODY = Node()


@dataclass(frozen=True, slots=True, eq=False)
class _Remembered:
    """A request that was parsed, as protobuf has it (without the node) and as a value, and what memory both take."""

    message: discovery_pb2.DeltaDiscoveryRequest
    lengths: tuple[int, ...]
    request: DeltaRequest
    size: int


class DeltaParser:
    """Parses delta requests; of long ones that many clients send alike, each is parsed once, and is one value.

    They are compared as messages without the node, which may hold a token, and not as bytes: two programs write a map
    in two orders. The last few are remembered, in 12 MiB of memory.
    """

    def __init__(self) -> None:
        self._known: deque[_Remembered] = deque()  # what was said last comes first
        self._size = 0

    def parse(self, raw: bytes) -> Parts[tuple[Node, DeltaRequest]]:
        """Parse a DeltaDiscoveryRequest. Raises MalformedRequestError, TooLargeError and UnknownRoleError."""
        yield from look_through(raw, _DELTA_LISTS)
        message = _parsed(discovery_pb2.DeltaDiscoveryRequest, raw)
        node = _node(message)
        yield
        names = len(message.resource_names_subscribe) + len(message.initial_resource_versions)
        if names < _MANY_NAMES or message.response_nonce:
            return node, _delta_request(message)
        message.ClearField("node")
        known = self._find(message)
        if known is not None:
            return node, known
        yield
        request = _delta_request(message)
        yield
        size = _memory_of(message, request)
        if size <= _REMEMBERED_BYTES and too_long(request) is None:
            # Another client may have said the same meanwhile.
            request = self._find(message) or self._remember(message, replace(request, shared=True), size)
        return node, request

    def _find(self, message: discovery_pb2.DeltaDiscoveryRequest) -> DeltaRequest | None:
        lengths = _lengths(message)
        for one in self._known:
            if one.lengths == lengths and one.message == message:
                if one is not self._known[0]:
                    self._known.remove(one)
                    self._known.appendleft(one)
                return one.request
        return None

    def _remember(self, message: discovery_pb2.DeltaDiscoveryRequest, request: DeltaRequest, size: int) -> DeltaRequest:
        alone = discovery_pb2.DeltaDiscoveryRequest()
        alone.CopyFrom(message)  # the memory of what was parsed has the node in it, too
        self._known.appendleft(_Remembered(alone, _lengths(message), request, size))
        self._size += size
        while self._size > _REMEMBERED_BYTES or len(self._known) > _REMEMBERED_REQUESTS:
            self._size -= self._known.pop().size
        return request


def _lengths(message: discovery_pb2.DeltaDiscoveryRequest) -> tuple[int, ...]:
    """Return what mostly tells two requests apart, at little cost."""
    lists = (message.resource_names_subscribe, message.resource_names_unsubscribe, message.initial_resource_versions)
    return tuple(map(len, lists))


def _memory_of(message: discovery_pb2.DeltaDiscoveryRequest, request: DeltaRequest) -> int:
    """Say how many bytes of memory it takes at the most to remember a request, as a message and as a value."""
    words = len(request.subscribe) + len(request.unsubscribe) + 2 * len(request.claimed)
    # One wide character makes all of a name take four bytes each.
    return 5 * int(message.ByteSize()) + _NAME_BYTES * words


def _delta_request(message: discovery_pb2.DeltaDiscoveryRequest) -> DeltaRequest:
    return DeltaRequest(
        type_url=message.type_url,
        subscribe=tuple(message.resource_names_subscribe),
        unsubscribe=tuple(message.resource_names_unsubscribe),
        claimed=dict(message.initial_resource_versions),
        nonce=message.response_nonce,
        error=_error(message),
    )


def parse_sotw(raw: bytes) -> Parts[tuple[Node, SotwRequest]]:
    """Parse a DiscoveryRequest. Raises MalformedRequestError, TooLargeError and UnknownRoleError."""
    yield from look_through(raw, _SOTW_LISTS)
    message = _parsed(discovery_pb2.DiscoveryRequest, raw)
    yield
    return _node(message), SotwRequest(
        type_url=message.type_url,
        names=tuple(message.resource_names),
        version=message.version_info,
        nonce=message.response_nonce,
        error=_error(message),
    )


class PackedEntries:
    """All resources of a type in a snapshot as a delta response has them: packed once, in parts, for all who join."""

    def __init__(self, resources: Mapping[str, Resource]) -> None:
        # Without the mapping, which keeps this.
        self._left = deque(batches(tuple(resources.values()), _PACKED_AT_ONCE))
        self._done: list[bytes] = []
        self.whole: bytes | None = None

    def in_parts(self) -> Parts[bytes]:
        """Return all of it; whoever else wants it takes part in packing."""
        while self.whole is None:
            if self._left:
                # What could not be packed, for want of memory, is left for the next who comes.
                self._done.append(_entries(self._left[0]))
                self._left.popleft()
                yield
            else:
                self.whole, self._done = b"".join(self._done), []
        return self.whole


def is_long(response: Response) -> bool:
    """Whether a response takes long to pack."""
    everything = response.everything
    if everything is None:
        return response.is_long
    return len(everything) > _PACKED_AT_ONCE and everything.derived(PackedEntries).whole is None


def pack_delta(response: Response, identifier: str) -> Parts[bytes]:
    """Serialise a DeltaDiscoveryResponse; `identifier` names this control plane (X07)."""
    message = discovery_pb2.DeltaDiscoveryResponse(
        system_version_info=response.version,
        type_url=response.type_url,
        nonce=response.nonce,
        removed_resources=response.removed,
    )
    message.control_plane.identifier = identifier
    # Fields of a message may stand in any order, so its parts are packed apart, and one that is the same for many
    # clients once.
    packed: list[bytes] = [message.SerializeToString()]
    if response.everything is not None:
        packed.append((yield from response.everything.derived(PackedEntries).in_parts()))
    else:
        for resources in batches(response.resources, _PACKED_AT_ONCE):
            packed.append(_entries(resources))
            yield
    return b"".join(packed)


def _entries(resources: Iterable[Resource]) -> bytes:
    message = discovery_pb2.DeltaDiscoveryResponse()
    for resource in resources:
        entry = message.resources.add(name=resource.key.name, version=resource.version)
        entry.resource.type_url = resource.key.type_url
        entry.resource.value = resource.body
    packed: bytes = message.SerializeToString()
    return packed


def pack_sotw(response: Response, identifier: str) -> Parts[bytes]:
    """Serialise a DiscoveryResponse; missing names become resource_errors (X27)."""
    message = discovery_pb2.DiscoveryResponse(
        version_info=response.version, type_url=response.type_url, nonce=response.nonce
    )
    message.control_plane.identifier = identifier
    packed: list[bytes] = [message.SerializeToString()]
    for resources in batches(response.resources, _PACKED_AT_ONCE):
        message = discovery_pb2.DiscoveryResponse()
        for resource in resources:
            message.resources.add(type_url=resource.key.type_url, value=resource.body)
        packed.append(message.SerializeToString())
        yield
    for names in batches(response.missing):
        packed.append(_errors(names))
        yield
    return b"".join(packed)


def _errors(missing: Iterable[str]) -> bytes:
    message = discovery_pb2.DiscoveryResponse()
    for name in missing:
        error = message.resource_errors.add()
        error.resource_name.name = name
        error.error_detail.code = NOT_FOUND
        error.error_detail.message = "no such resource"
    packed: bytes = message.SerializeToString()
    return packed


def _parsed(kind: type, raw: bytes) -> discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest:
    try:
        return kind.FromString(raw)  # type: ignore[attr-defined]
    except DecodeError:
        raise MalformedRequestError("the message is not a discovery request") from None


def _node(message: discovery_pb2.DeltaDiscoveryRequest | discovery_pb2.DiscoveryRequest) -> Node:
    return node_of(message.node) if message.HasField("node") else NOBODY  # only the first request must say it (X01)


def node_of(node: base_pb2.Node) -> Node:
    """Read who a client says it is; what it says is cut and made printable. Raises UnknownRoleError."""
    version = node.user_agent_build_version.version
    numbers = f"{version.major_number}.{version.minor_number}.{version.patch}"
    built = numbers if node.HasField("user_agent_build_version") else node.user_agent_version
    token, role, namespace = (_text(node, name) for name in (TOKEN_FIELD, ROLE_FIELD, NAMESPACE_FIELD))
    try:
        scope = Scope.of(printable(role, LONGEST_WORD), printable(namespace, LONGEST_WORD))
    except UnknownScopeError as error:
        raise UnknownRoleError(str(error)) from None
    name, cluster, agent = (printable(one, LONGEST_WORD) for one in (node.id, node.cluster, node.user_agent_name))
    return Node(name, cluster, agent, printable(built, LONGEST_WORD), token, scope)


def _text(node: base_pb2.Node, name: str) -> str:
    """Return a field of the metadata as text, empty if it is not there; what is no text is shown as it is."""
    fields = node.metadata.fields
    if name not in fields:
        return ""
    value: Value = fields[name]
    text: str = value.string_value
    kind = value.WhichOneof("kind")
    # What has more in it than a line may have thousands.
    return text if kind == "string_value" else kind if kind in _LONG_KINDS else str(value).strip()


def _error(message: discovery_pb2.DiscoveryRequest) -> str | None:
    return printable(message.error_detail.message) if message.HasField("error_detail") else None
