"""What goes into a session and what comes out of it, free of protobuf and gRPC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from controller.api.timing import REAL, StreamTiming
from xds_server.snapshot.snapshot import Resource, ResourceKey


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    """A DeltaDiscoveryRequest. `claimed` is `initial_resource_versions`; `error` is the message of a NACK or None."""

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    claimed: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class SotwRequest:
    """A DiscoveryRequest of state of the world. `version` is the one the client last accepted."""

    type_url: str
    names: tuple[str, ...] = ()
    version: str = ""
    nonce: str = ""
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """A response to be sent. `removed` exists in delta only, `missing` (resource_errors NOT_FOUND) in SotW only."""

    type_url: str
    nonce: str
    version: str
    resources: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Rejection:
    """A resource version the client refused with a NACK; `at` is in seconds of the session's clock."""

    key: ResourceKey
    version: str
    message: str
    at: float


@dataclass(frozen=True, slots=True)
class Overdue:
    """A resource that was sent before the client had ACKed what it requires, since the wait for that ran out."""

    key: ResourceKey
    waited_for: tuple[ResourceKey, ...]
    at: float


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client said to the last response of a type: an ACK, or a NACK."""

    type_url: str
    accepted: bool


@dataclass(frozen=True, slots=True)
class Output:
    """What a session wants done: send `responses` in order, and call `tick` no later than `wake_at` (None: never).

    `acknowledged`, `rejected` and `overdue` say what became known by this step.
    """

    responses: tuple[Response, ...] = ()
    wake_at: float | None = None
    answer: Answer | None = None
    acknowledged: frozenset[ResourceKey] = frozenset()
    rejected: tuple[Rejection, ...] = ()
    overdue: tuple[Overdue, ...] = ()


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for one client.

    `nonce_prefix` makes nonces unique across streams (X05). `secrets` lets it see secrets (X57). `ordered` is false for
    debug readers, which carry no traffic and ACK nothing, so that nothing may wait for them. `timing` bounds make
    before break (X44), and how long removals wait after a reconnect. `max_response_bytes` is the client's message limit
    (X50; gRPC's default: 4 MiB).
    """

    nonce_prefix: str = ""
    secrets: bool = False
    ordered: bool = True
    timing: StreamTiming = REAL.streams
    max_response_bytes: int = 4_000_000


class ProtocolError(Exception):
    """The root of what ends one stream, and only that one.

    ::

        ProtocolError
        |-- ResponseTooLargeError   a full set that cannot be split is above the client's message limit (X50)
        |-- MalformedRequestError   the bytes are no discovery request (wire)
        |-- WrongTypeError          no resource type, or another than the service's (X02; loop)
        |-- StalledError            the client does not read (X49; loop)
        |-- TooManyTypesError       more resource types than any client has (streams)
        |-- NotReadyError           a Fetch before the first snapshot (streams)
        `-- InternalError           a fault of ours (streams)
    """


class ResponseTooLargeError(ProtocolError):
    """A state-of-the-world response that must be complete would be larger than the client accepts."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a client has of one resource.

    `version` is what it acknowledged or claimed, empty when a NACK left that open (X42). `resource` is the last content
    known to be there, None when the client came with a version that is not the current one. `maybe` is content of
    refused responses that may have been applied nevertheless, since another resource was the bad one.
    """

    version: str
    resource: Resource | None
    maybe: tuple[Resource, ...] = ()

    @property
    def certain(self) -> bool:
        """Whether the client has the resource for sure, in whatever version."""
        return bool(self.version) or self.resource is not None

    @property
    def contents(self) -> tuple[Resource, ...]:
        """All content that may be there."""
        return self.maybe if self.resource is None else (self.resource, *self.maybe)

    @property
    def unknown(self) -> bool:
        """Whether nothing is known of its content."""
        return self.resource is None and not self.maybe


@dataclass(frozen=True, slots=True)
class Flight:
    """A response that the client has neither ACKed nor NACKed: what it brings and what it takes away."""

    nonce: str
    sent: Mapping[str, Resource] = field(default_factory=dict)
    removed: Mapping[str, Held | None] = field(default_factory=dict)
