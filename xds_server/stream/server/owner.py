"""The one task that owns every session. Streams, publishers and timers only put events into its queue."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

from controller.api.timing import REAL, StreamTiming
from xds_server.snapshot.snapshot import EMPTY, ResourceKey, Snapshot
from xds_server.stream.protocol.dialects import DeltaSession, SotwSession
from xds_server.stream.protocol.messages import ClientTerms, DeltaRequest, Output, ProtocolError, Response, SotwRequest
from xds_server.stream.protocol.session import Session
from xds_server.stream.server.clients import ClientEvent, ClientState, Holding, is_debug
from xds_server.stream.server.metrics import Metrics, label
from xds_server.stream.server.streams import (
    Asked,
    Due,
    End,
    InternalError,
    NotReadyError,
    Published,
    Stream,
    TooManyTypesError,
    client_state,
)
from xds_server.stream.server.wire import Node

log = logging.getLogger(__name__)

Observer = Callable[[ClientEvent], None]

# Envoy and grpcurl have the limit their user gave them, if any; other clients have gRPC's default of 4 MiB.
UNLIMITED_BYTES = 1 << 30
MAX_TYPES_PER_STREAM = 32
STREAMS_PER_TURN = 50
_LONGEST_NAME = 256  # of a node, in logs and reports


class Owner:
    """All streams, the snapshot they are at, and the one place where both change."""

    def __init__(
        self,
        instance: str,
        node_token: str,
        observer: Observer,
        metrics: Metrics,
        timing: StreamTiming = REAL.streams,
    ) -> None:
        self.timing = timing
        self._instance = instance
        self._node_token = node_token.encode()
        self._observer = observer
        self._metrics = metrics
        self._events: asyncio.Queue[Asked | Due | Published] = asyncio.Queue()
        self._streams: dict[int, Stream] = {}
        self._opened = 0
        self._ending = False
        self._snapshot = EMPTY
        self._next_snapshot: Snapshot | None = None
        self._ready = False
        self._early: list[Asked] = []
        self._changed: set[ResourceKey] = set()

    # From the outside, all of it without waiting.

    def publish(self, snapshot: Snapshot, changed: Iterable[ResourceKey]) -> None:
        """Hand over a new snapshot and the keys that differ from the one before."""
        if self._next_snapshot is None:
            self._events.put_nowait(Published())
        self._next_snapshot = snapshot
        self._changed.update(changed)

    def open(self, peer: str, type_url: str | None) -> Stream:
        """Begin a stream of all types (None) or of one."""
        self._opened += 1
        stream = Stream(self._opened, peer, type_url, datetime.now(UTC))
        self._streams[stream.number] = stream
        self._metrics.streams.labels(label(type_url)).inc()
        if self._ending:
            stream.outbox.put_nowait(End())
        return stream

    async def take(self, stream: Stream, node: Node, request: DeltaRequest | SotwRequest) -> None:
        """Hand over a request and wait until it is answered: a client has one request in the queue at most."""
        taken = asyncio.get_running_loop().create_future()
        self._events.put_nowait(Asked(stream, node, request, taken))
        await taken

    def close(self, stream: Stream) -> None:
        """Forget a stream."""
        if self._streams.pop(stream.number, None) is None:
            return
        if stream.timer is not None:
            stream.timer.cancel()
        self._metrics.streams.labels(label(stream.type_url)).dec()
        if stream.session is not None:
            log.info("xds client disconnected", extra={"stream": stream.number, "node": stream.node.id})
            self._tell(stream, "disconnected")

    def fetch(self, node: Node, request: SotwRequest) -> Response:
        """Answer one request from the newest snapshot, with no stream. Raises NotReadyError before the first one."""
        if not self._ready:
            raise NotReadyError("there is no snapshot yet")
        reader = SotwSession(self._snapshot, _fetching(self.authorises(node)), _now())
        responses = reader.receive(replace(request, version="", nonce="", error=None), _now()).responses
        return responses[0] if responses else Response(request.type_url, "", "")

    def end_all(self) -> None:
        """Have every stream end once what is in its outbox was sent."""
        self._ending = True
        for stream in self._streams.values():
            stream.outbox.put_nowait(End())

    def clients(self) -> tuple[ClientState, ...]:
        """Return all clients that said who they are, the oldest first."""
        to_epoch = _to_epoch()
        return tuple(client_state(stream, to_epoch) for stream in self._streams.values() if stream.session is not None)

    def holds(self, wanted: Iterable[tuple[ResourceKey, str]]) -> tuple[Holding, ...]:
        """Return for each client which of these resource versions it has not ACKed."""
        pairs, to_epoch = tuple(wanted), _to_epoch()
        return tuple(
            Holding(
                client_state(stream, to_epoch),
                frozenset(key for key, version in pairs if not stream.session.holds(key, version)),
            )
            for stream in self._streams.values()
            if stream.session is not None
        )

    # The task.

    async def run(self) -> None:
        """Take events until cancelled."""
        while True:
            match await self._events.get():
                case Asked() as asked:
                    self._take_request(asked)
                case Due(stream) if stream.number in self._streams and stream.session is not None:
                    self._act(stream, stream.session.tick)
                case Published():
                    await self._take_snapshot()

    async def _take_snapshot(self) -> None:
        assert self._next_snapshot is not None
        self._snapshot, self._next_snapshot, self._ready = self._next_snapshot, None, True
        early, self._early = self._early, []
        for asked in early:
            self._take_request(asked)
        changed, self._changed = frozenset(self._changed), set()
        snapshot = self._snapshot
        for turn, stream in enumerate(tuple(self._streams.values())):
            session = stream.session
            if session is not None and stream.number in self._streams:
                self._act(stream, partial(_publish, session, snapshot, changed))
            if turn % STREAMS_PER_TURN == STREAMS_PER_TURN - 1:
                await asyncio.sleep(0)  # let the writers write meanwhile

    def _take_request(self, asked: Asked) -> None:
        """Answer a request. Before the first snapshot it waits: nothing is taken from a client that reconnects."""
        stream, request = asked.stream, asked.request
        if not self._ready:
            self._early.append(asked)
            return
        if not asked.taken.done():
            asked.taken.set_result(None)
        if stream.number not in self._streams:
            return
        if stream.session is None:
            self._introduce(stream, asked.node, request)
        session = stream.session
        if isinstance(session, DeltaSession) and isinstance(request, DeltaRequest):
            delta = session
            self._act(stream, lambda now: delta.receive(request, now))
        elif isinstance(session, SotwSession) and isinstance(request, SotwRequest):
            sotw = session
            self._act(stream, lambda now: sotw.receive(request, now))
        if session is not None and len(session.types) > MAX_TYPES_PER_STREAM:
            stream.outbox.put_nowait(End(TooManyTypesError(f"more than {MAX_TYPES_PER_STREAM} resource types")))

    def _introduce(self, stream: Stream, node: Node, request: DeltaRequest | SotwRequest) -> None:
        stream.authorised = self.authorises(node)
        stream.node = replace(node, token="", id=node.id[:_LONGEST_NAME])
        own_limit = is_debug(node.id) or node.user_agent == "envoy"
        terms = ClientTerms(
            nonce_prefix=f"{self._instance}-{stream.number}-",
            secrets=stream.authorised,
            ordered=not is_debug(node.id),
            timing=self.timing,
            max_response_bytes=UNLIMITED_BYTES if own_limit else ClientTerms().max_response_bytes,
        )
        kind = DeltaSession if isinstance(request, DeltaRequest) else SotwSession
        stream.session = kind(self._snapshot, terms, _now())
        log.info(
            "xds client connected",
            extra={"stream": stream.number, "node": node.id, "peer": stream.peer, "authorised": stream.authorised},
        )
        self._tell(stream, "connected")

    def authorises(self, node: Node) -> bool:
        """Tell whether a client is one of ours: it carries the node token."""
        return bool(self._node_token) and hmac.compare_digest(node.token.encode(), self._node_token)

    def _act(self, stream: Stream, step: Callable[[float], Output]) -> None:
        """Let a session take a step, and do what it wants done."""
        now = _now()
        try:
            output = step(now)
        except ProtocolError as error:
            stream.outbox.put_nowait(End(error))
            return
        except Exception:
            log.exception("xds session failed", extra={"stream": stream.number, "node": stream.node.id})
            stream.outbox.put_nowait(End(InternalError("internal error")))
            return
        for response in output.responses:
            stream.sent_at[response.type_url] = now
            stream.outbox.put_nowait(response)
            self._metrics.responses.labels(label(response.type_url)).inc()
        self._set_timer(stream, output.wake_at)
        self._report(stream, output, now)

    def _set_timer(self, stream: Stream, wake_at: float | None) -> None:
        if stream.timer is not None:
            stream.timer.cancel()
        loop = asyncio.get_running_loop()
        stream.timer = None if wake_at is None else loop.call_at(wake_at, self._events.put_nowait, Due(stream))

    def _report(self, stream: Stream, output: Output, now: float) -> None:
        if output.answer is not None:
            kind = label(output.answer.type_url)
            (self._metrics.acks if output.answer.accepted else self._metrics.nacks).labels(kind).inc()
            self._metrics.push_seconds.labels(kind).observe(now - stream.sent_at.get(output.answer.type_url, now))
        for rejection in output.rejected:
            log.warning(
                "xds client rejected a resource",
                extra={
                    "node": stream.node.id,
                    "type": label(rejection.key.type_url),
                    "resource": rejection.key.name,
                    "version": rejection.version,
                    "error": rejection.message,
                },
            )
        for late in output.overdue:
            log.error(
                "xds resource sent before what it requires was acknowledged",
                extra={
                    "node": stream.node.id,
                    "resource": late.key.name,
                    "waited_for": [k.name for k in late.waited_for],
                },
            )
        if output.answer is not None and output.answer.accepted:
            self._tell(stream, "acknowledged", output.acknowledged)
        if output.answer is not None and not output.answer.accepted:
            self._tell(stream, "rejected", frozenset(rejection.key for rejection in output.rejected))
        if output.overdue:
            self._tell(stream, "overdue", frozenset(late.key for late in output.overdue))

    def _tell(self, stream: Stream, kind: str, keys: frozenset[ResourceKey] = frozenset()) -> None:
        event = ClientEvent(kind, stream.number, stream.node.id, is_debug(stream.node.id), keys)  # type: ignore[arg-type]
        try:
            self._observer(event)
        except Exception:
            log.exception("xds observer failed", extra={"kind": kind, "stream": stream.number})


def _fetching(secrets: bool) -> ClientTerms:
    return ClientTerms(secrets=secrets, ordered=False, max_response_bytes=UNLIMITED_BYTES)


def _publish(session: Session, snapshot: Snapshot, changed: frozenset[ResourceKey], now: float) -> Output:
    return session.publish(snapshot, changed, now)


def _now() -> float:
    """The clock of sessions and timers, in seconds."""
    return asyncio.get_running_loop().time()


def _to_epoch() -> float:
    return time.time() - _now()
