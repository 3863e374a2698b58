"""The open streams: who is there, who carries traffic, and how far each client is."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from xds_server.snapshot.scope import GATEWAY, Scope
from xds_server.snapshot.snapshot import ResourceKey, Snapshot
from xds_server.stream.admission import ClientAdmission, ClientStanding
from xds_server.stream.protocol.dialects import DeltaSession, SotwSession
from xds_server.stream.server.clients import ClientState, ClientStream, Holding, Progress, StreamEnd, client_state
from xds_server.stream.server.telemetry import ClientTelemetry
from xds_server.stream.wire import Node

_MOST_UNCHECKED = 300


class OpenStreams:
    """Every open stream. `admission` is told of those that are not trusted, `telemetry` of all.

    A stream is there until it is closed, and a client as soon as its stream has a session.
    """

    def __init__(self, admission: ClientAdmission, telemetry: ClientTelemetry) -> None:
        self._admission = admission
        self._telemetry = telemetry
        self._streams: dict[int, ClientStream] = {}
        self._carrying: Counter[str] = Counter()
        self._opened = 0
        self._ending = False

    def __contains__(self, stream: ClientStream) -> bool:
        return stream.number in self._streams

    def __iter__(self) -> Iterator[ClientStream]:
        """Those there are now, the oldest first; they may be closed meanwhile."""
        return iter(tuple(self._streams.values()))

    def open(self, peer: str, type_url: str | None) -> ClientStream:
        """Begin a stream of all types (None) or of one."""
        self._opened += 1
        stream = ClientStream(self._opened, peer, type_url, datetime.now(UTC))
        self._streams[stream.number] = stream
        self._telemetry.opened(stream)
        if self._ending:
            stream.outbox.put_nowait(StreamEnd())
        return stream

    def introduce(self, stream: ClientStream, node: Node, standing: ClientStanding) -> None:
        """Learn who the client of a stream is. Raises TooManyStreamsError."""
        if not standing.trusted:
            self._admission.enter(stream.peer)
        stream.trusted, stream.authorised = standing.trusted, standing.authorised
        stream.node, stream.introduced = replace(node, token=""), True

    def begin(self, stream: ClientStream, session: DeltaSession | SotwSession) -> None:
        """Give a stream its session: from now on its client is one."""
        stream.session = session
        if _carries(stream):
            self._carrying[stream.node.id] += 1
        self._telemetry.connected(stream)

    def close(self, stream: ClientStream) -> None:
        """Forget a stream; one that is closed already is no mistake."""
        if self._streams.pop(stream.number, None) is None:
            return
        if stream.introduced and not stream.trusted:
            self._admission.leave(stream.peer)
        if stream.session is not None and _carries(stream):
            self._carrying[stream.node.id] -= 1
            if not self._carrying[stream.node.id]:
                del self._carrying[stream.node.id]
        self._telemetry.closed(stream)

    def end_all(self) -> None:
        """Have every stream end once what is in its outbox was sent."""
        self._ending = True
        for stream in self._streams.values():
            stream.outbox.put_nowait(StreamEnd())

    def clients(self) -> tuple[ClientState, ...]:
        """Return all clients that said who they are, the oldest first."""
        return tuple(_state(stream) for stream in self._streams.values() if stream.session is not None)

    def refused(self) -> str:
        """Say what is wrong with a client that comes and does not count; see `ClientAdmission.refused`."""
        now = session_clock()
        streams = self._streams.values()
        stranger = next((one for one in streams if one.introduced and not (one.trusted or one.node.is_debug)), None)
        if stranger and not self._admission.by_callers:
            self._admission.note_refusal(stranger.peer, "it does not carry the node token", now)
        return self._admission.refused(now)

    def peers(self) -> Iterable[str]:
        """Return from where there is a stream, as gRPC writes it."""
        return [stream.peer for stream in self._streams.values()]

    def carrying(self) -> Collection[str]:
        """Return the node ids of the gateway's Envoys, which carry traffic.

        One whose last stream may be over is one until that is known.
        """
        return self._carrying.keys()

    def progress(self, snapshot: Snapshot, scope: Scope) -> Progress:
        """Return how far the clients of a scope are with the snapshot that it has now."""
        every, others = [], []
        for stream in self._streams.values():
            if stream.session is None or stream.node.scope != scope:
                continue
            entry = (_state(stream), stream.session)
            every.append(entry)
            if stream.complete is not snapshot:
                # What is not wholly booked yet is told once it is.
                if not stream.turn.locked() and stream.session.has_all(snapshot, stream.unchecked):
                    stream.complete, stream.unchecked = snapshot, set()
                else:
                    others.append(entry)
        return Progress(snapshot, tuple(every), tuple(others))

    def holds(self, wanted: Iterable[tuple[ResourceKey, str]], scope: Scope = GATEWAY) -> tuple[Holding, ...]:
        """Return for each client of a scope which of these resource versions it has not ACKed."""
        pairs = tuple(wanted)
        return tuple(
            Holding(
                _state(stream),
                frozenset(key for key, version in pairs if not stream.session.holds(key, version)),
            )
            for stream in self._streams.values()
            if stream.session is not None and stream.node.scope == scope
        )


def session_clock() -> float:
    """The clock of sessions and timers, in seconds."""
    return asyncio.get_running_loop().time()


def note_changes(stream: ClientStream, changed: set[ResourceKey]) -> None:
    """Note what was published to a client that had all: beyond some hundreds, all is looked at as fast."""
    if stream.unchecked is not None:
        stream.unchecked |= changed
        if len(stream.unchecked) > _MOST_UNCHECKED:
            stream.unchecked = None


def _state(stream: ClientStream) -> ClientState:
    if stream.state is None:
        stream.state = client_state(stream, _to_epoch())
    return stream.state


def _carries(stream: ClientStream) -> bool:
    """Whether the client is an Envoy of the gateway, as far as anybody can tell."""
    return stream.trusted and not stream.node.is_debug and stream.node.scope == GATEWAY


def _to_epoch() -> float:
    return time.time() - session_clock()
