"""All client sessions, and the one task that changes them.

Streams, publishers and timers only put events in its queue. What takes long is done apart, one at a time, so that what
came after it overtakes it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

from controller.api.timing import REAL, StreamTiming
from xds_server.snapshot.scope import GATEWAY, Scope
from xds_server.snapshot.snapshot import EMPTY, ResourceKey, Snapshot
from xds_server.stream.admission import ClientAdmission, ClientStanding
from xds_server.stream.protocol.dialects import DeltaSession, SotwSession
from xds_server.stream.protocol.messages import (
    ClientTerms,
    DeltaRequest,
    Output,
    ProtocolError,
    Response,
    SotwRequest,
    without_frames,
)
from xds_server.stream.server.clients import ClientState, ClientStream, Holding, Progress, StreamEnd, client_state
from xds_server.stream.server.telemetry import ClientTelemetry
from xds_server.stream.wire import Node

log = logging.getLogger(__name__)

# Envoy and grpcurl have the limit their user gave them, if any; other clients have gRPC's default of 4 MiB.
UNLIMITED_BYTES = 1 << 30
MAX_TYPES_PER_STREAM = 32
STREAMS_PER_TURN = 50

_MOST_UNCHECKED = 300


class InternalError(ProtocolError):
    """A session failed in a way nobody foresaw; only its client is cut off, and connects again."""

    code = "INTERNAL"


class NotReadyError(ProtocolError):
    """The server has nothing to answer with yet."""

    code = "UNAVAILABLE"


class TooManyTypesError(ProtocolError):
    """A stream asked for more resource types than any client has."""

    code = "RESOURCE_EXHAUSTED"


@dataclass(frozen=True, slots=True)
class RequestArrived:
    """A client said something; `answered` is done once the answers are in the outbox of its stream."""

    stream: ClientStream
    request: DeltaRequest | SotwRequest
    answered: asyncio.Future[None]


@dataclass(frozen=True, slots=True)
class WaitEnded:
    """The time has come that the session of this stream asked to be woken at."""

    stream: ClientStream


class SnapshotsPublished:
    """There are new snapshots; they and their changes are in `Sessions`, so that a burst of them is one event."""


class Sessions:
    """Every stream with its session, and the snapshot of each scope; all of it is changed by the task `run`, and by
    what that has done in turn, alone.

    `admission` says who sees secrets, who counts, and how much anybody may say.
    """

    def __init__(
        self, instance: str, admission: ClientAdmission, telemetry: ClientTelemetry, timing: StreamTiming = REAL.streams
    ) -> None:
        self.timing = timing
        self.admission = admission
        self._instance = instance
        self._telemetry = telemetry
        self._events: asyncio.Queue[RequestArrived | WaitEnded | SnapshotsPublished] = asyncio.Queue()
        self._streams: dict[int, ClientStream] = {}
        self._carrying: Counter[str] = Counter()
        self._opened = 0
        self._ending = False
        self._snapshots: dict[Scope, Snapshot] = {}
        self._published: dict[Scope, tuple[Snapshot, set[ResourceKey]]] = {}
        self._early: dict[int, RequestArrived] = {}
        self._begun = asyncio.Event()

    # From the outside, all of it without waiting.

    def publish(self, snapshot: Snapshot, changed: Iterable[ResourceKey], scope: Scope = GATEWAY) -> None:
        """Hand over a new snapshot of a scope, and the keys that differ from the one before.

        What is published without an `await` in between arrives together, whatever its scope.
        """
        if not self._published:
            self._events.put_nowait(SnapshotsPublished())
        keys = self._published[scope][1] if scope in self._published else set()
        keys.update(changed)
        self._published[scope] = (snapshot, keys)

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
            self.admission.enter(stream.peer)
        stream.trusted, stream.authorised = standing.trusted, standing.authorised
        stream.node, stream.introduced = replace(node, token=""), True

    async def begun(self) -> None:
        """Wait until there is a snapshot."""
        await self._begun.wait()

    async def handle(self, stream: ClientStream, request: DeltaRequest | SotwRequest) -> None:
        """Hand over a request and wait until it is answered: a client has one request in the queue at most."""
        answered = asyncio.get_running_loop().create_future()
        self._events.put_nowait(RequestArrived(stream, request, answered))
        await answered

    async def finish(self, stream: ClientStream) -> None:
        """Have a stream end once what its client asked for is answered: it says no more."""
        if stream.session is not None and stream.session.owes_long_answer:
            await self._handle_in_turn(WaitEnded(stream))
        stream.outbox.put_nowait(StreamEnd())

    def close(self, stream: ClientStream) -> None:
        """Forget a stream."""
        if self._streams.pop(stream.number, None) is None:
            return
        self._early.pop(stream.number, None)
        if stream.timer is not None:
            stream.timer.cancel()
        if stream.introduced and not stream.trusted:
            self.admission.leave(stream.peer)
        if stream.session is not None and _carries(stream):
            self._carrying[stream.node.id] -= 1
            if not self._carrying[stream.node.id]:
                del self._carrying[stream.node.id]
        self._telemetry.closed(stream)

    def fetch(self, node: Node, request: SotwRequest, standing: ClientStanding) -> Response:
        """Answer one request from the newest snapshot, with no stream. Raises NotReadyError before the first one."""
        if not self._snapshots:
            raise NotReadyError("there is no snapshot yet")
        terms = ClientTerms(secrets=standing.authorised, ordered=False, max_response_bytes=UNLIMITED_BYTES)
        reader = SotwSession(self._snapshot_of(node), terms, _now())
        at_once = reader.receive(replace(request, version="", nonce="", error=None), _now()).responses
        responses = at_once or reader.tick(_now()).responses
        return responses[0] if responses else Response(request.type_url, "", "")

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
        now = _now()
        streams = self._streams.values()
        stranger = next((one for one in streams if one.introduced and not (one.trusted or one.node.is_debug)), None)
        if stranger and not self.admission.by_callers:
            self.admission.note_refusal(stranger.peer, "it does not carry the node token", now)
        return self.admission.refused(now)

    def peers(self) -> Iterable[str]:
        """Return from where there is a stream, as gRPC writes it."""
        return [stream.peer for stream in self._streams.values()]

    def carrying(self) -> Collection[str]:
        """Return the node ids of the gateway's Envoys, which carry traffic.

        One whose last stream may be over is one until that is known.
        """
        return self._carrying.keys()

    def progress(self, scope: Scope = GATEWAY) -> Progress:
        """Return how far the clients of a scope are."""
        snapshot = self._snapshots.get(scope, EMPTY)
        every, others = [], []
        for stream in self._streams.values():
            if stream.session is None or stream.node.scope != scope:
                continue
            entry = (_state(stream), stream.session)
            every.append(entry)
            if stream.complete is not snapshot:
                if stream.session.has_all(snapshot, stream.unchecked):
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

    # The task.

    async def run(self) -> None:
        """Handle events until cancelled."""
        async with asyncio.TaskGroup() as long:
            while True:
                event = await self._events.get()
                if isinstance(event, SnapshotsPublished):
                    await self._serve_published()
                elif _is_long(event):
                    long.create_task(self._handle_in_turn(event))
                else:
                    self._handle(event)
                # An event is some milliseconds of work, a thousand of them are seconds in which nobody could connect.
                await asyncio.sleep(0)

    async def _handle_in_turn(self, event: RequestArrived | WaitEnded) -> None:
        """Handle an event that takes some ten milliseconds, while others overtake it."""
        async with self.admission.turn_of_long():
            self._handle(event)

    def _handle(self, event: RequestArrived | WaitEnded) -> None:
        match event:
            case RequestArrived():
                self._answer(event)
            case WaitEnded(stream) if stream.number in self._streams and stream.session is not None:
                self._step(stream, stream.session.tick)

    async def _serve_published(self) -> None:
        published, self._published = self._published, {}
        self._begun.set()
        self._snapshots.update((scope, snapshot) for scope, (snapshot, _) in published.items())
        early, self._early = self._early, {}
        for arrived in early.values():
            self._events.put_nowait(arrived)  # There may be thousands, and each has its turn.
        for turn, stream in enumerate(tuple(self._streams.values())):
            session, publication = stream.session, published.get(stream.node.scope)
            if session is not None and publication is not None and stream.number in self._streams:
                _note_changes(stream, publication[1])
                self._step(stream, partial(_publish, session, *publication))
            if turn % STREAMS_PER_TURN == STREAMS_PER_TURN - 1:
                await asyncio.sleep(0)  # let the writers write meanwhile

    def _snapshot_of(self, node: Node) -> Snapshot:
        """Return what a client may see: nothing, if nothing was published for its scope."""
        return self._snapshots.get(node.scope, EMPTY)

    def _answer(self, arrived: RequestArrived) -> None:
        """Answer a request. Before the first snapshot it waits: a client that reconnects loses nothing."""
        stream, request = arrived.stream, arrived.request
        if not self._snapshots:
            if stream.number in self._streams:
                self._early[stream.number] = arrived
            return
        if not arrived.answered.done():
            arrived.answered.set_result(None)
        if stream.number not in self._streams:
            return
        session = stream.session or self._begin_session(stream, request)
        if request.subscribes:
            stream.unchecked = None
        if isinstance(session, DeltaSession) and isinstance(request, DeltaRequest):
            delta = session
            self._step(stream, lambda now: delta.receive(request, now))
        elif isinstance(session, SotwSession) and isinstance(request, SotwRequest):
            sotw = session
            self._step(stream, lambda now: sotw.receive(request, now))
        if len(session.types) > MAX_TYPES_PER_STREAM:
            stream.outbox.put_nowait(StreamEnd(TooManyTypesError(f"more than {MAX_TYPES_PER_STREAM} resource types")))

    def _begin_session(self, stream: ClientStream, request: DeltaRequest | SotwRequest) -> DeltaSession | SotwSession:
        node = stream.node
        own_limit = node.is_debug or node.user_agent == "envoy"
        terms = ClientTerms(
            nonce_prefix=f"{self._instance}-{stream.number}-",
            secrets=stream.authorised,
            ordered=not node.is_debug,
            timing=self.timing,
            max_names=self.admission.limits(stream.trusted).names,
            max_response_bytes=UNLIMITED_BYTES if own_limit else ClientTerms().max_response_bytes,
        )
        kind = DeltaSession if isinstance(request, DeltaRequest) else SotwSession
        stream.session = session = kind(self._snapshot_of(node), terms, _now())
        if _carries(stream):
            self._carrying[node.id] += 1
        self._telemetry.connected(stream)
        return session

    def _step(self, stream: ClientStream, step: Callable[[float], Output]) -> None:
        """Let a session do a step, and do what it wants done."""
        now = _now()
        stream.state = stream.complete = None
        try:
            output = step(now)
        except ProtocolError as error:
            # A client that does not read leaves it in the outbox, and the outbox is the stream's that a frame keeps.
            stream.outbox.put_nowait(StreamEnd(without_frames(error)))
            return
        except Exception:
            log.exception("xds session failed", extra={"stream": stream.number, "node": stream.node.id})
            stream.outbox.put_nowait(StreamEnd(InternalError("internal error")))
            return
        for response in output.responses:
            stream.outbox.put_nowait(response)
        self._set_timer(stream, output.wake_at)
        self._telemetry.stepped(stream, output, now)

    def _set_timer(self, stream: ClientStream, wake_at: float | None) -> None:
        if stream.timer is not None:
            stream.timer.cancel()
        loop = asyncio.get_running_loop()
        stream.timer = None if wake_at is None else loop.call_at(wake_at, self._events.put_nowait, WaitEnded(stream))


def _is_long(event: RequestArrived | WaitEnded) -> bool:
    """Whether an event may take some ten milliseconds."""
    session = event.stream.session
    if isinstance(event, RequestArrived):
        return event.request.is_long or (session is not None and session.books_much_for(event.request))
    return session is not None and session.owes_long_answer


def _publish(session: DeltaSession | SotwSession, snapshot: Snapshot, changed: set[ResourceKey], now: float) -> Output:
    return session.publish(snapshot, changed, now)


def _note_changes(stream: ClientStream, changed: set[ResourceKey]) -> None:
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


def _now() -> float:
    """The clock of sessions and timers, in seconds."""
    return asyncio.get_running_loop().time()


def _to_epoch() -> float:
    return time.time() - _now()
