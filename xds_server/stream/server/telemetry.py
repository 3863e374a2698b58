"""What is told of clients: to an observer, in the log, and as metrics."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from xds_server.snapshot.snapshot import SHORT, ResourceKey
from xds_server.stream.protocol.messages import Output
from xds_server.stream.server.clients import ClientStream

log = logging.getLogger(__name__)

EventKind = Literal["connected", "initialised", "disconnected", "acknowledged", "rejected", "overdue"]

LINES_AT_ONCE = 10
"""Of refusals that come at once, and of what goes out too early: a line with a text of 4 KB takes a millisecond."""
STRANGERS_TOLD_EVERY = timedelta(seconds=10)

_LABELS = (*SHORT.values(), "other")
"""The types that responses are counted by."""
PUSH_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


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
        """Say what one step of a session sent, and what became known by it: answers of trusted clients alone count."""
        for response in output.responses:
            stream.sent_at[response.type_url] = now
            self._metrics.responses[_label(response.type_url)].inc()
        if not stream.trusted:
            return  # what it claims to have accepted or refused is of no interest, nor when
        answer = output.answer
        if answer is not None:
            kind = _label(answer.type_url)
            (self._metrics.acks if answer.accepted else self._metrics.nacks)[kind].inc()
            self._metrics.push_seconds[kind].observe(now - stream.sent_at.get(answer.type_url, now))
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
    for rejection in output.rejected[:LINES_AT_ONCE]:
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
    for late in output.overdue[:LINES_AT_ONCE]:
        if not _has_room(stream, now):
            return
        log.error(
            "xds resource sent before what it requires was acknowledged",
            extra={"node": node, "resource": late.key.name, "waited_for": [key.name for key in late.waited_for]},
        )
    more = sum(max(len(troubles) - LINES_AT_ONCE, 0) for troubles in (output.rejected, output.overdue))
    if more and _has_room(stream, now):
        log.warning("xds client has more of the same troubles", extra={"node": node, "more": more})


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
