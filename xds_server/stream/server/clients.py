"""The clients of the server: their open streams, and what others may know of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from xds_server.snapshot.scope import GATEWAY, Scope
from xds_server.snapshot.snapshot import ResourceKey, Snapshot
from xds_server.stream.protocol.dialects import DeltaSession, SotwSession
from xds_server.stream.protocol.messages import Overdue, ProtocolError, Rejection, Response
from xds_server.stream.wire import Node

Protocol = Literal["delta", "sotw"]

LINES_OF_A_STREAM = 100
"""How many lines of the log the troubles of one stream fill at once; one more each second."""


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
    Whoever has a session do something in parts has the `turn` meanwhile: nothing else may be done with it.
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
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    lines: LineBudget = field(default_factory=LineBudget)


@dataclass(frozen=True, slots=True)
class ClientState:
    """One client stream. `stream` is its number on this server; times of rejections are seconds since the epoch.

    `is_debug` clients (node.id empty or `debug/...`) read and carry no traffic: they never count for `Programmed`. Nor
    do those that are not `trusted`, for they say of themselves what they like: where there is a node token, a client is
    trusted if it is `authorised`, which is to say that it carries the token; where there is none, every client is.
    `initialised` tells whether it ACKed or NACKed a first answer to everything it asked for with a wildcard. Of
    `rejections` and `overdue` there are twenty at most.
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

    def refusals(self, keys: Collection[ResourceKey]) -> tuple[tuple[ClientState, Rejection], ...]:
        """Return who refuses which of these resources: as much work however much else they refuse."""
        refusing = ((client, session) for client, session in self.others if client.rejections)
        return tuple(
            (client, found) for client, session in refusing for key in keys if (found := session.rejection(key))
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
