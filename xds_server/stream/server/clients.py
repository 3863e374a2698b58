"""The clients of the server: their open streams, and what others may know of them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from xds_server.snapshot.scope import GATEWAY, Scope
from xds_server.snapshot.snapshot import SHORT, ResourceKey, Snapshot
from xds_server.stream.protocol.dialects import DeltaSession, SotwSession
from xds_server.stream.protocol.messages import Output, Overdue, ProtocolError, Rejection, Response
from xds_server.stream.wire import Node

log = logging.getLogger(__name__)

Protocol = Literal["delta", "sotw"]
EventKind = Literal["connected", "initialised", "disconnected", "acknowledged", "rejected", "overdue"]

STRANGERS_TOLD_EVERY = timedelta(seconds=10)

LINES_OF_A_STREAM = 100
"""How many lines of the log the troubles of one stream fill at once; one more each second."""

_LABELS = (*SHORT.values(), "other")
"""The types that responses are counted by."""
PUSH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """The end of a stream: the server is going away (no error), or the client broke a rule."""

    error: ProtocolError | None = None


@dataclass(slots=True)
class LineBudget:
    """How many lines of the log a stream may still fill: a client may refuse the same thing as often as it asks for it.

    `exhausted` tells whether that was said.
    """

    left: float = LINES_OF_A_STREAM
    at: float = 0.0
    exhausted: bool = False

    def take(self, now: float) -> bool:
        """Take one line, if there is one; `now` is a steady clock's."""
        self.left = min(self.left + max(now - self.at, 0.0), LINES_OF_A_STREAM)
        self.at = now
        if self.left < 1:
            return False
        self.left, self.exhausted = self.left - 1, False
        return True


@dataclass(slots=True, eq=False)
class ClientStream:
    """One open RPC. The first request introduces the client (X01), and begins the session.

    `type_url` is None for a stream of all types. `sent_at` is by type the time of the last response. `state` and
    `complete` are kept from one step of the session to the next: what others may know of the client, and the snapshot
    that it has all of. `unchecked` are the keys that were published since it had all of what there was; None while it
    never had, or when it asked for something else since. `initialised` is what `ClientState` says, after the last step.
    """

    number: int
    peer: str
    type_url: str | None
    connected_at: datetime
    outbox: asyncio.Queue[Response | StreamEnd] = field(default_factory=asyncio.Queue)
    node: Node = field(default_factory=Node)
    introduced: bool = False
    authorised: bool = False
    trusted: bool = False
    session: DeltaSession | SotwSession | None = None
    timer: asyncio.TimerHandle | None = None
    sent_at: dict[str, float] = field(default_factory=dict)
    state: ClientState | None = None
    complete: Snapshot | None = None
    unchecked: set[ResourceKey] | None = None
    initialised: bool = False
    lines: LineBudget = field(default_factory=LineBudget)


@dataclass(frozen=True, slots=True)
class ClientState:
    """One client stream. `stream` is its number on this server; times of rejections are seconds since the epoch.

    `is_debug` clients (node.id empty or `debug/...`) read and carry no traffic: they never count for `Programmed`. Nor
    do those that are not `trusted`, for they say of themselves what they like: where there is a node token, a client is
    trusted if it is `authorised`, which is to say that it carries the token; where there is none, every client is.
    `initialised` tells whether it ACKed a first answer to everything it asked for with a wildcard.
    """

    stream: int
    protocol: Protocol
    peer: str
    node_id: str
    cluster: str
    user_agent: str
    user_agent_version: str
    connected_at: datetime
    is_debug: bool
    authorised: bool
    trusted: bool
    initialised: bool
    scope: Scope = GATEWAY
    rejections: tuple[Rejection, ...] = ()
    overdue: tuple[Overdue, ...] = ()

    @property
    def counts(self) -> bool:
        """Whether it is an Envoy of ours, as far as anybody can tell."""
        return self.trusted and not self.is_debug


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the clients of a scope are with what is published for it, `snapshot`, at one moment.

    `every` client is there with its session; `others` are those that do not have all of the snapshot. Of many clients
    most have, so they are told apart once, and not for each resource that is asked about.
    """

    snapshot: Snapshot
    every: tuple[tuple[ClientState, DeltaSession | SotwSession], ...]
    others: tuple[tuple[ClientState, DeltaSession | SotwSession], ...]

    @property
    def clients(self) -> tuple[ClientState, ...]:
        """Who is connected."""
        return tuple(client for client, _ in self.every)

    def of(self, concerned: Callable[[ClientState], bool]) -> Progress:
        """Return the same of some of the clients."""
        every, others = (tuple(one for one in some if concerned(one[0])) for some in (self.every, self.others))
        return Progress(self.snapshot, every, others)

    def lacking(self, wanted: Iterable[tuple[ResourceKey, str]]) -> tuple[ClientState, ...]:
        """Return the clients that have not ACKed all of these resource versions."""
        pairs = tuple(wanted)
        found = ((self.snapshot.find(key), version) for key, version in pairs)
        is_published = all(one is not None and one.version == version for one, version in found)
        return tuple(
            client
            for client, session in (self.others if is_published else self.every)
            if not all(session.holds(key, version) for key, version in pairs)
        )


@dataclass(frozen=True, slots=True)
class Holding:
    """How far one client is with some resources: `missing` are those it has not ACKed in the version asked about."""

    client: ClientState
    missing: frozenset[ResourceKey]

    @property
    def complete(self) -> bool:
        """Whether it ACKed all of them."""
        return not self.missing


@dataclass(frozen=True, slots=True)
class ClientEvent:
    """A client came, is initialised, went, or its state changed for `keys`; without keys all are concerned.

    Nothing is said of a client that is not trusted.
    """

    kind: EventKind
    stream: int
    node_id: str
    is_debug: bool
    keys: frozenset[ResourceKey] = frozenset()


OnClientEvent = Callable[[ClientEvent], None]


def client_state(stream: ClientStream, to_epoch: float) -> ClientState:
    """Return what may be known of a stream; `to_epoch` turns times of its session into seconds since the epoch."""
    session, node = stream.session, stream.node
    assert session is not None
    return ClientState(
        stream=stream.number,
        protocol="delta" if isinstance(session, DeltaSession) else "sotw",
        peer=stream.peer,
        node_id=node.id,
        cluster=node.cluster,
        user_agent=node.user_agent,
        user_agent_version=node.user_agent_version,
        connected_at=stream.connected_at,
        is_debug=node.is_debug,
        authorised=stream.authorised,
        trusted=stream.trusted,
        initialised=session.initialised,
        scope=node.scope,
        rejections=tuple(replace(rejection, at=rejection.at + to_epoch) for rejection in session.rejections),
        overdue=tuple(replace(late, at=late.at + to_epoch) for late in session.overdue),
    )


class StreamMetrics:
    """Metrics on one registry. The label `type` is CDS, EDS, LDS, RDS, SDS or `other`; for streams also ADS."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.streams = Gauge("beamlit_xds_streams", "Open client streams.", ["type"], registry=registry)
        # Before the first one, too: a counter that appears with a one has not risen for Prometheus.
        self.responses, self.acks, self.nacks = (
            {kind: counter.labels(kind) for kind in _LABELS}
            for counter in (
                Counter("beamlit_xds_responses", "Responses sent.", ["type"], registry=registry),
                Counter("beamlit_xds_acks", "Responses acknowledged.", ["type"], registry=registry),
                Counter("beamlit_xds_nacks", "Responses refused.", ["type"], registry=registry),
            )
        )
        push_seconds = Histogram(
            "beamlit_xds_push_seconds",
            "From a response to its ACK or NACK.",
            ["type"],
            registry=registry,
            buckets=PUSH_BUCKETS,
        )
        self.push_seconds = {kind: push_seconds.labels(kind) for kind in _LABELS}


class ClientTelemetry:
    """Says what happens to clients: to an observer, in the log, and as metrics."""

    def __init__(self, observer: OnClientEvent, registry: CollectorRegistry) -> None:
        self._observer = observer
        self._metrics = StreamMetrics(registry)
        self._warned_at: datetime | None = None

    def opened(self, stream: ClientStream) -> None:
        """Count a new stream."""
        self._metrics.streams.labels(_label(stream.type_url)).inc()

    def connected(self, stream: ClientStream) -> None:
        """Say that a stream has said who it is."""
        level, node = (logging.INFO if stream.trusted else logging.DEBUG), stream.node
        who = {"stream": stream.number, "node": node.id, "peer": stream.peer, "authorised": stream.authorised}
        log.log(level, "xds client connected", extra=who)
        if not stream.trusted and not node.is_debug and self._is_news(stream):
            log.warning("xds client does not carry the node token: it gets no secrets and does not count", extra=who)
        self._notify(stream, "connected")

    def closed(self, stream: ClientStream) -> None:
        """Say that a stream is over."""
        self._metrics.streams.labels(_label(stream.type_url)).dec()
        if stream.session is not None:
            level = logging.INFO if stream.trusted else logging.DEBUG
            log.log(level, "xds client disconnected", extra={"stream": stream.number, "node": stream.node.id})
            self._notify(stream, "disconnected")

    def stepped(self, stream: ClientStream, output: Output, now: float) -> None:
        """Say what one step of a session sent, and what became known by it."""
        for response in output.responses:
            stream.sent_at[response.type_url] = now
            self._metrics.responses[_label(response.type_url)].inc()
        answer = output.answer
        if answer is not None:
            kind = _label(answer.type_url)
            (self._metrics.acks if answer.accepted else self._metrics.nacks)[kind].inc()
            self._metrics.push_seconds[kind].observe(now - stream.sent_at.get(answer.type_url, now))
        if not stream.trusted:
            return  # what it claims to have accepted or refused is of no interest
        _log_trouble(stream, output, now)
        if _is_initialised_now(stream):
            # From now on it counts for everything, also for what it has of another server and never acknowledges here.
            self._notify(stream, "initialised")
        if answer is not None and answer.accepted:
            self._notify(stream, "acknowledged", output.acknowledged)
        if answer is not None and not answer.accepted:
            self._notify(stream, "rejected", frozenset(rejection.key for rejection in output.rejected))
        if output.overdue:
            self._notify(stream, "overdue", frozenset(late.key for late in output.overdue))

    def _is_news(self, stream: ClientStream) -> bool:
        """Whether nothing was said of strangers lately: they come as often as they like."""
        before = self._warned_at
        if before is not None and stream.connected_at - before < STRANGERS_TOLD_EVERY:
            return False
        self._warned_at = stream.connected_at
        return True

    def _notify(self, stream: ClientStream, kind: EventKind, keys: frozenset[ResourceKey] = frozenset()) -> None:
        if not stream.trusted:
            return
        event = ClientEvent(kind, stream.number, stream.node.id, stream.node.is_debug, keys)
        try:
            self._observer(event)
        except Exception:
            log.exception("xds observer failed", extra={"kind": kind, "stream": stream.number})


def _is_initialised_now(stream: ClientStream) -> bool:
    """Whether the client of a stream was not initialised before its last step, and is since."""
    before, stream.initialised = stream.initialised, stream.session is not None and stream.session.initialised
    return stream.initialised and not before


def _log_trouble(stream: ClientStream, output: Output, now: float) -> None:
    node = stream.node.id
    for rejection in output.rejected:
        if not _has_room(stream, now):
            return
        log.warning(
            "xds client rejected a resource",
            extra={
                "node": node,
                "type": _label(rejection.key.type_url),
                "resource": rejection.key.name,
                "version": rejection.version,
                "error": rejection.message,
            },
        )
    for late in output.overdue:
        if not _has_room(stream, now):
            return
        log.error(
            "xds resource sent before what it requires was acknowledged",
            extra={"node": node, "resource": late.key.name, "waited_for": [key.name for key in late.waited_for]},
        )


def _has_room(stream: ClientStream, now: float) -> bool:
    """Take a line of the log for a stream; where there is none, say so once."""
    if stream.lines.take(now):
        return True
    if not stream.lines.exhausted:
        stream.lines.exhausted = True
        log.warning("xds client has more troubles than are logged", extra={"node": stream.node.id})
    return False


def _label(type_url: str | None) -> str:
    """Return the short name of a type; None is the aggregated stream."""
    return "ADS" if type_url is None else SHORT.get(type_url, "other")
