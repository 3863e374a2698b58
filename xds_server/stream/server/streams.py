"""The open client streams as the owner keeps them, and the events that reach it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from datetime import datetime

from xds_server.stream.protocol.dialects import DeltaSession, SotwSession
from xds_server.stream.protocol.messages import DeltaRequest, ProtocolError, Response, SotwRequest
from xds_server.stream.server.clients import ClientState, is_debug
from xds_server.stream.server.wire import Node


class InternalError(ProtocolError):
    """A session failed in a way nobody foresaw; only its client is cut off, and connects again."""


class NotReadyError(ProtocolError):
    """The server has nothing to answer with yet."""


class TooManyTypesError(ProtocolError):
    """A stream asked for more resource types than any client has."""


@dataclass(frozen=True, slots=True)
class End:
    """The end of a stream: the server is going away (no error), or the client broke a rule."""

    error: ProtocolError | None = None


@dataclass(slots=True, eq=False)
class Stream:
    """One open RPC. The session exists from the first request on, since that one says who the client is (X01)."""

    number: int
    peer: str
    type_url: str | None
    connected_at: datetime
    outbox: asyncio.Queue[Response | End] = field(default_factory=asyncio.Queue)
    node: Node = field(default_factory=Node)
    authorised: bool = False
    session: DeltaSession | SotwSession | None = None
    timer: asyncio.TimerHandle | None = None
    sent_at: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Asked:
    """A request arrived; `taken` is done once its answers are in the outbox."""

    stream: Stream
    node: Node
    request: DeltaRequest | SotwRequest
    taken: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class Due:
    """A wait of this stream ran out."""

    stream: Stream


class Published:
    """There is a new snapshot; it and what changed are with the owner, so that a burst of them is one."""


def client_state(stream: Stream, to_epoch: float) -> ClientState:
    """Return what may be told of a stream; `to_epoch` turns times of its session into seconds since the epoch."""
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
        is_debug=is_debug(node.id),
        authorised=stream.authorised,
        initialised=session.initialised,
        rejections=tuple(replace(rejection, at=rejection.at + to_epoch) for rejection in session.rejections),
        overdue=tuple(replace(late, at=late.at + to_epoch) for late in session.overdue),
    )
