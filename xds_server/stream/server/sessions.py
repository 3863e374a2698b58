"""The sessions of all clients, and what changes them: a step at a time, none of which waits for anything.

A request is answered where it was read. What takes long is done apart and in parts, one of them at a time, so that what
came after it, on other streams, overtakes it. Publishers and timers only put events in the queue of one task.
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
from xds_server.stream.protocol.parts import Parts, at_once
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
        # Strangers are told of what is published after all others.
        self._behind: dict[int, tuple[ClientStream, list[set[ResourceKey]]]] = {}
        # And those whose sessions do something in parts, once that is done: of the snapshot that there was then. Of a
        # newer one they are told with its own changes.
        self._missed: dict[int, tuple[Snapshot, set[ResourceKey]]] = {}
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
        if overtakes_nobody and self._snapshots and not self._takes_long(stream, request):
            self._answer(stream, request)
            self._round.count()
            return
        answered = asyncio.get_running_loop().create_future()
        self._events.put_nowait(RequestArrived(stream, request, answered))
        await answered

    def finish(self, stream: ClientStream) -> None:
        """Have a stream end behind what its client asked for, which is answered: it says no more."""
        stream.outbox.put_nowait(StreamEnd())

    def close(self, stream: ClientStream) -> None:
        """Forget a stream."""
        self._early.pop(stream.number, None)
        self._behind.pop(stream.number, None)
        self._missed.pop(stream.number, None)
        if stream.timer is not None:
            stream.timer.cancel()
        self.streams.close(stream)

    async def fetch(self, node: Node, request: SotwRequest, standing: ClientStanding) -> Response:
        """Answer one request from the newest snapshot, with no stream. Raises NotReadyError before the first one."""
        if not self._snapshots:
            raise NotReadyError("there is no snapshot yet")
        terms = ClientTerms(secrets=standing.authorised, ordered=False, max_response_bytes=UNLIMITED_BYTES)
        reader = SotwSession(self._snapshot_of(node), terms, session_clock())
        asked = replace(request, version="", nonce="", error=None)
        parts = reader.receive(asked, session_clock())
        output = await self.admission.in_turns(parts) if reader.takes_long(asked) else at_once(parts)
        return output.responses[0] if output.responses else Response(request.type_url, "", "")

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
                elif self._is_long(event):
                    long.create_task(self._handle_in_parts(event))
                else:
                    self._handle(event)
                self._round.count()
                if self._round.is_over:
                    await asyncio.sleep(0)

    def _is_long(self, event: RequestArrived | WaitEnded) -> bool:
        """Whether an event may take some ten milliseconds, or has to wait for one that does."""
        if isinstance(event, RequestArrived):
            return bool(self._snapshots) and self._takes_long(event.stream, event.request)
        stream, session = event.stream, event.stream.session
        # What is done in parts goes by the moment at which it began: what is due since then is looked at behind it.
        waits = stream.turn.locked() or stream.number in self._missed
        return session is not None and (waits or session.much_is_due)

    def _handle(self, event: RequestArrived | WaitEnded) -> None:
        match event:
            case RequestArrived():
                self._answer_arrived(event)
            case WaitEnded(stream) if stream in self.streams and stream.session:
                self._step(stream, stream.session.tick(session_clock()))

    async def _handle_in_parts(self, event: RequestArrived | WaitEnded) -> None:
        """Handle an event that takes long: others go on between its parts, of which all clients have one at a time."""
        stream = event.stream
        async with stream.turn:
            if isinstance(event, RequestArrived):
                await self._go_on(stream, lambda: self._answering(stream, event.request))
                self._check_types(stream)
                _set_done(event.answered)
            elif stream.number not in self._missed and (session := stream.session) is not None:
                await self._go_on(stream, lambda: session.tick(session_clock()))
            while (missed := self._missed.pop(stream.number, None)) is not None:
                await self._go_on(stream, partial(self._publishing, stream, *missed))

    async def _go_on(self, stream: ClientStream, begin: Callable[[], Parts[Output]]) -> None:
        """Have a session do something part by part, for as long as its stream is there."""

        def doing() -> Parts[None]:
            if stream in self.streams:
                parts = begin()
                while stream in self.streams and not self._do_part(stream, parts):
                    yield

        await self.admission.in_turns(doing())

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
                snapshot, changed = publication
                note_changes(stream, changed)
                if not stream.trusted:
                    self._behind.setdefault(stream.number, (stream, []))[1].append(changed)
                elif stream.turn.locked() or stream.number in self._missed or session.much_is_due:
                    _, missed = self._missed.get(stream.number, (snapshot, set()))
                    self._missed[stream.number] = snapshot, missed | changed
                    self._events.put_nowait(WaitEnded(stream))
                else:
                    self._step(stream, session.publish(snapshot, changed, session_clock()))
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
                async with stream.turn:
                    if stream in self.streams:
                        changed = changes[0].union(*changes[1:])
                        self._step(stream, self._publishing(stream, self._snapshot_of(stream.node), changed))

    def _snapshot_of(self, node: Node) -> Snapshot:
        """Return what a client may see: nothing, if nothing was published for its scope."""
        return self._snapshots.get(node.scope, EMPTY)

    def _takes_long(self, stream: ClientStream, request: DeltaRequest | SotwRequest) -> bool:
        session = stream.session
        if session is None and request.is_long and stream in self.streams:
            session = self._begin_session(stream, request)
        return stream.turn.locked() or (session is not None and session.takes_long(request))

    def _answer_arrived(self, arrived: RequestArrived) -> None:
        """Answer a request. Before the first snapshot it waits: a client that reconnects loses nothing."""
        stream = arrived.stream
        if not self._snapshots:
            if stream in self.streams:
                self._early[stream.number] = arrived
            return
        _set_done(arrived.answered)
        self._answer(stream, arrived.request)

    def _answer(self, stream: ClientStream, request: DeltaRequest | SotwRequest) -> None:
        if stream in self.streams:
            self._step(stream, self._answering(stream, request))
            self._check_types(stream)

    def _answering(self, stream: ClientStream, request: DeltaRequest | SotwRequest) -> Parts[Output]:
        session = stream.session or self._begin_session(stream, request)
        if request.subscribes:
            stream.unchecked = None
        if isinstance(session, DeltaSession) and isinstance(request, DeltaRequest):
            return session.receive(request, session_clock())
        assert isinstance(session, SotwSession)
        assert isinstance(request, SotwRequest)
        return session.receive(request, session_clock())

    def _publishing(self, stream: ClientStream, snapshot: Snapshot, changed: set[ResourceKey]) -> Parts[Output]:
        assert stream.session is not None
        return stream.session.publish(snapshot, changed, session_clock())

    def _check_types(self, stream: ClientStream) -> None:
        if stream.session is not None and len(stream.session.types) > MAX_TYPES_PER_STREAM:
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

    def _step(self, stream: ClientStream, parts: Parts[Output]) -> None:
        """Let a session do a step, and do what it wants done."""
        while not self._do_part(stream, parts):
            pass

    def _do_part(self, stream: ClientStream, parts: Parts[Output]) -> bool:
        """Let a session do a part of a step; with the last one, which this says, do what it wants done."""
        stream.state = stream.complete = None
        try:
            next(parts)
        except StopIteration as end:
            output: Output = end.value
        except ProtocolError as error:
            # A client that does not read leaves it in the outbox, and the outbox is the stream's that a frame keeps.
            stream.outbox.put_nowait(StreamEnd(without_frames(error)))
            return True
        except Exception:
            log.exception("xds session failed", extra={"stream": stream.number, "node": stream.node.id})
            stream.outbox.put_nowait(StreamEnd(InternalError("internal error")))
            return True
        else:
            return False
        for response in output.responses:
            stream.outbox.put_nowait(response)
        self._set_timer(stream, output.wake_at)
        self._telemetry.stepped(stream, output, session_clock())
        return True

    def _set_timer(self, stream: ClientStream, wake_at: float | None) -> None:
        if stream.timer is not None:
            stream.timer.cancel()
        loop = asyncio.get_running_loop()
        stream.timer = None if wake_at is None else loop.call_at(wake_at, self._events.put_nowait, WaitEnded(stream))


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
