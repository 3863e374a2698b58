"""What goes into a session and what comes out of it: plain values, free of protobuf and gRPC."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, TypeVar

from controller.api.timing import REAL, StreamTiming
from xds_server.snapshot.snapshot import Layered, Resource, ResourceKey
from xds_server.stream.protocol.parts import MANY

AnyError = TypeVar("AnyError", bound=BaseException)

WILDCARD = "*"
_MANY_PACKED = 250
"""Resources and names in a response from which on it takes some milliseconds to pack."""


@dataclass(frozen=True, slots=True)
class DeltaRequest:
    """A DeltaDiscoveryRequest. `claimed` is `initial_resource_versions`; `error` is the message of a NACK or None.

    `shared` is set on the one value of what many clients say alike, so that what follows from it is worth keeping; no
    word of it is too long.
    """

    type_url: str
    subscribe: tuple[str, ...] = ()
    unsubscribe: tuple[str, ...] = ()
    claimed: Mapping[str, str] = field(default_factory=dict)
    nonce: str = ""
    error: str | None = None
    shared: bool = field(default=False, compare=False, repr=False)

    @property
    def subscribes(self) -> bool:
        """Whether it may ask for something else than the requests before it."""
        return bool(self.subscribe or self.unsubscribe or self.claimed)

    @property
    def is_long(self) -> bool:
        """Whether it takes so long to understand that others go on meanwhile, unless it is known already."""
        return len(self.subscribe) + len(self.unsubscribe) + len(self.claimed) > MANY


@dataclass(frozen=True, slots=True)
class SotwRequest:
    """A DiscoveryRequest of state of the world. `version` is the one the client last accepted."""

    type_url: str
    names: tuple[str, ...] = ()
    version: str = ""
    nonce: str = ""
    error: str | None = None

    @property
    def subscribes(self) -> bool:
        """Whether it may ask for something else than the requests before it: each says all of it anew."""
        return True

    @property
    def is_long(self) -> bool:
        """Whether it takes so long to understand that others go on meanwhile."""
        return len(self.names) > MANY


@dataclass(frozen=True, slots=True)
class Subscription:
    """Which names of one type a client wants: everything (`wildcard`), some `names`, both, or nothing.

    `legacy` marks the wildcard of a client that never named anything: only for it do no names go on meaning everything.
    Source: xDS protocol, "How the client specifies what resources to return".
    """

    wildcard: bool = False
    names: frozenset[str] = frozenset()
    legacy: bool = False

    def covers(self, name: str) -> bool:
        """Whether the client wants the resource of this name, should it exist."""
        return self.wildcard or name in self.names

    def after_delta(self, subscribe: Collection[str], unsubscribe: Collection[str]) -> Subscription:
        """Return the subscription after these lists (X30: naming a resource leaves a wildcard in place)."""
        names = (self.names - frozenset(unsubscribe)) | (frozenset(subscribe) - {WILDCARD})
        wildcard = WILDCARD in subscribe or (self.wildcard and WILDCARD not in unsubscribe)
        return Subscription(wildcard, names)

    def after_sotw(self, names: Collection[str], first: bool) -> Subscription:
        """Return the subscription that these names state in full (X19, X20).

        No names mean everything in a first request and in those after it until something is named; afterwards nothing.
        """
        if not names:
            legacy = first or self.legacy
            return Subscription(wildcard=legacy, legacy=legacy)
        return Subscription(WILDCARD in names, frozenset(names) - {WILDCARD})


NOTHING = Subscription()
EVERYTHING = Subscription(wildcard=True, legacy=True)


@dataclass(frozen=True, slots=True)
class Response:
    """A response to be sent. `removed` exists in delta only, `missing` (resource_errors NOT_FOUND) in SotW only.

    `everything` is there if its resources are all those of the type in a snapshot: they need to be packed once only.
    """

    type_url: str
    nonce: str
    version: str
    resources: tuple[Resource, ...] = ()
    removed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    everything: Layered[Resource] | None = field(default=None, compare=False, repr=False)

    @property
    def is_long(self) -> bool:
        """Whether it takes some ten milliseconds to pack."""
        return self.everything is None and len(self.resources) + len(self.removed) + len(self.missing) > _MANY_PACKED


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
class ClientAnswer:
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
    answer: ClientAnswer | None = None
    acknowledged: frozenset[ResourceKey] = frozenset()
    rejected: tuple[Rejection, ...] = ()
    overdue: tuple[Overdue, ...] = ()


@dataclass(frozen=True, slots=True)
class ClientTerms:
    """What holds for one client.

    `nonce_prefix` makes nonces unique across streams (X05). `secrets` lets it see secrets (X57). `ordered` is false for
    debug readers, which carry no traffic and ACK nothing, so that nothing may wait for them. `timing` bounds make
    before break (X44), and how long removals wait after a reconnect. `max_response_bytes` is the client's message limit
    (X50; gRPC's default: 4 MiB). `max_names` is how many resources of one type it may name.
    """

    nonce_prefix: str = ""
    secrets: bool = False
    ordered: bool = True
    timing: StreamTiming = REAL.streams
    max_response_bytes: int = 4_000_000
    max_names: int = 20_000


class ProtocolError(Exception):
    """The root of what ends one stream, and only that one.

    ::

        ProtocolError
        |-- ResponseTooLargeError   a full set that cannot be split is above the client's message limit (X50)
        |-- TooManyNamesError       a client named more resources of one type than it may
        |-- TooLargeError           a message with more in it than is taken of anybody, or of strangers (stream.limits)
        |-- TooManyStreamsError     strangers have all the streams that they may have (stream.admission)
        |-- NotAllowedError         its certificate lets the client not do that, or not be that node (stream.admission)
        |-- MalformedRequestError   the bytes are no discovery request (stream.limits)
        |-- UnknownRoleError        the node's metadata says a role there is not (stream.wire)
        |-- WrongTypeError          no resource type, or another than the service's (X02; server.services)
        |-- StalledError            the client does not read (X49; server.services)
        |-- SilentError             the client says nothing at all (stream.admission)
        |-- TooManyTypesError       more resource types than any client has (server.sessions)
        |-- NotReadyError           a Fetch before the first snapshot (server.sessions)
        `-- InternalError           a fault of ours (server.sessions)
    """

    code: ClassVar[str] = "INVALID_ARGUMENT"
    """The name of the gRPC status that its stream or call ends with."""


def without_frames(error: AnyError) -> AnyError:
    """Have an error keep nothing of what was done when it came up, which is up to 4 MiB that the client said.

    It is the result of a task, which who waits for the task keeps, whom the error names in its traceback: a circle,
    which only Python's search for garbage would end, and that is rare.
    """
    one: BaseException | None = error
    while one is not None:
        one.__traceback__ = None
        one = one.__context__
    return error


class ResponseTooLargeError(ProtocolError):
    """A state-of-the-world response that must be complete would be larger than the client accepts."""

    code = "RESOURCE_EXHAUSTED"


class TooManyNamesError(ProtocolError):
    """A client asks for more resources of one type, by name, than it may."""

    code = "RESOURCE_EXHAUSTED"
