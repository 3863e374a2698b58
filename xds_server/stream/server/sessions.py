"""The sessions of all clients, and what changes them: a step at a time, none of which waits for anything.

A request is answered where it was read. What takes long is done apart, one at a time, so that what came after it
overtakes it. Publishers and timers only put events in the queue of one task.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
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
from xds_server.stream.server.clients import ClientStream, Progress, StreamEnd
from xds_server.stream.server.rounds import Round
from xds_server.stream.server.streams import OpenStreams, note_changes, session_clock
from xds_server.stream.server.telemetry import ClientTelemetry
from xds_server.stream.wire import Node

log = logging.getLogger(__name__)

# Envoy and grpcurl have the limit their user gave them, if any; other clients have gRPC's default of 4 MiB.
UNLIMITED_BYTES = 1 << 30
MAX_TYPES_PER_STREAM = 32
# Clients are told of new snapshots for so many seconds, or one of them, and others have their turn.
_TOLD_AT_ONCE = 0.005


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
    """Every stream with its session, and the snapshot of each scope.

    `admission` says who sees secrets, who counts, and how much anybody may say.
    """

    def __init__(
        self, instance: str, admission: ClientAdmission, telemetry: ClientTelemetry, timing: StreamTiming = REAL.streams
    ) -> None:
        self.timing = timing
        self.admission = admission
        self._instance = instance
        self.streams = OpenStreams(admission, telemetry)
        self._telemetry = telemetry
        self._events: asyncio.Queue[RequestArrived | WaitEnded | SnapshotsPublished] = asyncio.Queue()
        self._snapshots: dict[Scope, Snapshot] = {}
        self._published: dict[Scope, tuple[Snapshot, set[ResourceKey]]] = {}
        self._early: dict[int, RequestArrived] = {}
        self._behind: dict[int, tuple[ClientStream, list[set[ResourceKey]]]] = {}
        self._begun = asyncio.Event()
        self._round = Round()

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

    async def begun(self) -> None:
        """Wait until there is a snapshot."""
        await self._begun.wait()

    async def handle(self, stream: ClientStream, request: DeltaRequest | SotwRequest) -> None:
        """Answer a request, if that may be done at once; else have it answered, and wait until it is."""
        overtakes_nobody = self._events.empty() and not self._round.is_over
        if overtakes_nobody and self._snapshots and not _takes_long(stream, request):
            self._answer(stream, request)
            self._round.count()
            return
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
        self._early.pop(stream.number, None)
        self._behind.pop(stream.number, None)
        if stream.timer is not None:
            stream.timer.cancel()
        self.streams.close(stream)

    def fetch(self, node: Node, request: SotwRequest, standing: ClientStanding) -> Response:
        """Answer one request from the newest snapshot, with no stream. Raises NotReadyError before the first one."""
        if not self._snapshots:
            raise NotReadyError("there is no snapshot yet")
        terms = ClientTerms(secrets=standing.authorised, ordered=False, max_response_bytes=UNLIMITED_BYTES)
        reader = SotwSession(self._snapshot_of(node), terms, session_clock())
        at_once = reader.receive(replace(request, version="", nonce="", error=None), session_clock()).responses
        responses = at_once or reader.tick(session_clock()).responses
        return responses[0] if responses else Response(request.type_url, "", "")

    def progress(self, scope: Scope = GATEWAY) -> Progress:
        """Return how far the clients of a scope are with what was published for it."""
        return self.streams.progress(self._snapshots.get(scope, EMPTY), scope)

    # The task.

    async def run(self) -> None:
        """Handle events until cancelled."""
        async with asyncio.TaskGroup() as long:
            telling: asyncio.Task[None] | None = None
            while True:
                event = await self._events.get()
                if isinstance(event, SnapshotsPublished):
                    await self._serve_published()
                    if self._behind and (telling is None or telling.done()):
                        telling = long.create_task(self._tell_strangers())
                elif _is_long(event):
                    long.create_task(self._handle_in_turn(event))
                else:
                    self._handle(event)
                self._round.count()
                if self._round.is_over:
                    await asyncio.sleep(0)

    async def _handle_in_turn(self, event: RequestArrived | WaitEnded) -> None:
        """Handle an event that takes some ten milliseconds, while others overtake it."""
        async with self.admission.turn_of_long():
            self._handle(event)

    def _handle(self, event: RequestArrived | WaitEnded) -> None:
        match event:
            case RequestArrived():
                self._answer_arrived(event)
            case WaitEnded(stream) if stream in self.streams and stream.session is not None:
                self._step(stream, stream.session.tick)

    async def _serve_published(self) -> None:
        published, self._published = self._published, {}
        self._begun.set()
        self._snapshots.update((scope, snapshot) for scope, (snapshot, _) in published.items())
        early, self._early = self._early, {}
        for arrived in early.values():
            self._events.put_nowait(arrived)  # There may be thousands, and each has its turn.
        began = session_clock()
        for stream in self.streams:
            session, publication = stream.session, published.get(stream.node.scope)
            if session is not None and publication is not None and stream in self.streams:
                note_changes(stream, publication[1])
                if stream.trusted:
                    self._step(stream, partial(_publish, session, *publication))
                else:
                    self._behind.setdefault(stream.number, (stream, []))[1].append(publication[1])
            if session_clock() - began >= _TOLD_AT_ONCE:
                await asyncio.sleep(0)  # let the writers write meanwhile
                began = session_clock()

    async def _tell_strangers(self) -> None:
        """Tell those who are not ours what is published, each in its turn: a full set of all clusters is milliseconds.

        Who had to wait meanwhile is told all of it at once.
        """
        while self._behind:
            async with self.admission.turn_of_strangers():
                if not self._behind:
                    return
                stream, changes = self._behind.pop(next(iter(self._behind)))
                if stream.session is not None:
                    changed = changes[0].union(*changes[1:])
                    self._step(stream, partial(_publish, stream.session, self._snapshot_of(stream.node), changed))

    def _snapshot_of(self, node: Node) -> Snapshot:
        """Return what a client may see: nothing, if nothing was published for its scope."""
        return self._snapshots.get(node.scope, EMPTY)

    def _answer_arrived(self, arrived: RequestArrived) -> None:
        """Answer a request. Before the first snapshot it waits: a client that reconnects loses nothing."""
        stream = arrived.stream
        if not self._snapshots:
            if stream in self.streams:
                self._early[stream.number] = arrived
            return
        if not arrived.answered.done():
            arrived.answered.set_result(None)
        self._answer(stream, arrived.request)

    def _answer(self, stream: ClientStream, request: DeltaRequest | SotwRequest) -> None:
        if stream not in self.streams:
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
        session = kind(self._snapshot_of(node), terms, session_clock())
        self.streams.begin(stream, session)
        return session

    def _step(self, stream: ClientStream, step: Callable[[float], Output]) -> None:
        """Let a session do a step, and do what it wants done."""
        now = session_clock()
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
    if isinstance(event, RequestArrived):
        return _takes_long(event.stream, event.request)
    session = event.stream.session
    return session is not None and session.owes_long_answer


def _takes_long(stream: ClientStream, request: DeltaRequest | SotwRequest) -> bool:
    session = stream.session
    return request.is_long or (session is not None and session.books_much_for(request))


def _publish(session: DeltaSession | SotwSession, snapshot: Snapshot, changed: set[ResourceKey], now: float) -> Output:
    return session.publish(snapshot, changed, now)
