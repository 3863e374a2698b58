"""Load reporting (LRS) on the port of the xDS server: each report goes to an observer."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from grpc.aio import EOF, ServicerContext

from controller.api.timing import REAL, StreamTiming
from xds_server.snapshot.scope import GATEWAY, Scope
from xds_server.stream.admission import ClientAdmission
from xds_server.stream.endings import cancelled, end_call
from xds_server.stream.limits import LONG_MESSAGE
from xds_server.stream.load_reporting.wire import (
    LoadRequest,
    LoadStream,
    LoadTerms,
    ReportedLoads,
    joined,
    pack_load_terms,
    parse_in_parts,
    parse_introduction,
    parse_load_request,
)
from xds_server.stream.protocol.messages import ProtocolError
from xds_server.stream.protocol.parts import Parts, at_once

log = logging.getLogger(__name__)

LRS = "envoy.service.load_stats.v3.LoadReportingService"


class LoadReceiver(Protocol):
    """Who gets to know what clients report. It must not wait."""

    def report_received(self, stream: LoadStream, report: ReportedLoads, now: float) -> Parts[None]:
        """A client sent a report: nothing in the first message of one that was never asked. `now` is a steady clock's.

        What it says is said once: should it come back, with another stream, here or elsewhere, it says what is new.
        Between the parts others go on; the stream says nothing else meanwhile, but may end.
        """

    def stream_ended(self, stream: LoadStream, now: float) -> None:
        """A stream is over."""


class Unobserved:
    """Reports that nobody wants to know of."""

    def report_received(self, stream: LoadStream, report: ReportedLoads, now: float) -> Parts[None]:
        """Take no notice."""
        yield

    def stream_ended(self, stream: LoadStream, now: float) -> None:
        """Take no notice."""


class LoadSession:
    """What one client is asked to report, from its first message on, which says whether it `supports_all`. Pure.

    The rules are those of `lrs.proto`: the server says which clusters it wants to hear of and how often, and says it
    again only when that changes (X54). `send_all_clusters` is for clients that know it.

    `clusters` are those there are. To a client that needs their names nothing is sent while there are none, for an
    empty list would be the end of reporting.
    """

    def __init__(self, interval: float, supports_all: bool, clusters: frozenset[str]) -> None:
        self._interval = interval
        self._supports_all = supports_all
        self._clusters = clusters
        self._last: LoadTerms | None = None

    def publish(self, clusters: frozenset[str]) -> None:
        """Note which clusters there are now."""
        self._clusters = clusters

    def next_terms(self) -> LoadTerms | None:
        """Return the terms to send; None when the client knows them."""
        wanted = LoadTerms(self._interval, None if self._supports_all else self._clusters)
        if wanted == self._last or (self._last is None and wanted.clusters == frozenset()):
            return None
        self._last = wanted
        return wanted


@dataclass(eq=False, slots=True)
class _Open:
    """One open RPC; the session exists from the first message on."""

    context: ServicerContext
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    session: LoadSession | None = None
    scope: Scope = GATEWAY
    stream: LoadStream | None = None
    is_stranger: bool = False


class LoadStreams:
    """All load reporting streams. `admission` says whether what a node reports counts, for it steers traffic."""

    def __init__(self, observer: LoadReceiver, admission: ClientAdmission, timing: StreamTiming = REAL.streams) -> None:
        self._observer = observer
        self._admission = admission
        self._timing = timing
        self._clusters: dict[Scope, frozenset[str]] = {}
        self._open: set[_Open] = set()
        self._numbers = itertools.count()
        self._ready = asyncio.Event()
        self._ending = asyncio.Event()

    def publish(self, clusters: frozenset[str], scope: Scope = GATEWAY) -> None:
        """Say which clusters a scope has. Before the first time nobody is asked for a report: nobody knows yet what it
        is about.
        """
        self._clusters[scope] = clusters
        self._ready.set()
        for one in self._open:
            if one.session is not None and one.scope == scope and not one.is_stranger:
                one.session.publish(clusters)
                one.changed.set()

    def peers(self) -> Iterable[str]:
        """Return from where there is a stream, as gRPC writes it."""
        return [one.context.peer() for one in self._open]

    def end_all(self) -> None:
        """End every stream, and each that comes."""
        self._ending.set()

    async def serve(self, _requests: object, context: ServicerContext) -> None:
        """Serve one stream to its end.

        However it ends, Envoy goes on counting for five seconds, and then says everything to whom it finds.
        """
        # Sent by itself: gRPC would send it with the first message, and once more with an end that comes meanwhile.
        await context.send_initial_metadata(())
        one = _Open(context)
        self._open.add(one)
        work = [asyncio.create_task(task) for task in (self._read(one), self._write(one), self._ending.wait())]
        try:
            await asyncio.wait(work, return_when=asyncio.FIRST_COMPLETED)
            for task in work[:2]:
                if task.done():
                    task.result()
        except ProtocolError as error:
            await end_call(context, error)
        finally:
            self._open.discard(one)
            if one.is_stranger:
                self._admission.leave(context.peer())
            if one.stream is not None:
                self._observer.stream_ended(one.stream, asyncio.get_running_loop().time())
            await cancelled(*work)

    async def _read(self, one: _Open) -> None:
        raw = await self._admission.first_word(one.context.read, self._timing.first_word)
        if raw is EOF:
            return
        async with self._admission.turn_of_newcomers():
            parts = parse_introduction(raw)
            said = await self._admission.in_turns(parts) if len(raw) > LONG_MESSAGE else at_once(parts)
            self._introduce(one, said, len(raw))
        await self._ready.wait()
        clock = asyncio.get_running_loop().time
        while raw is not EOF:
            began = clock()
            if one.stream is not None:  # what others report is not even read
                await self._take(one.stream, raw)
            raw = await one.context.read()
            if raw is not EOF:
                # Who reports more often than it was asked to waits: each report costs all who are told of it.
                await asyncio.sleep(max(0.0, began + self._timing.loads_every / 2 - clock()))

    async def _take(self, stream: LoadStream, raw: bytes) -> None:
        """Read a report and pass it on, and have others go on meanwhile: where there are thousands of clusters."""
        is_long = len(raw) > LONG_MESSAGE
        request = await self._admission.in_turns(_parsing(raw)) if is_long else parse_load_request(raw)
        try:
            observing = self._observer.report_received(stream, request.loads, asyncio.get_running_loop().time())
            if is_long:
                await self._admission.in_turns(observing)
            else:
                at_once(observing)
        except Exception:
            # A mistake of ours costs a report; a stream that ended would be there again in five seconds, and as wrong.
            log.exception("load report not taken", extra={"node": stream.node})

    async def _write(self, one: _Open) -> None:
        await self._ready.wait()
        while True:
            await one.changed.wait()
            one.changed.clear()
            terms = one.session.next_terms() if one.session else None
            if terms is not None:
                await one.context.write(pack_load_terms(terms))

    def _introduce(self, one: _Open, request: LoadRequest, size: int) -> None:
        """Learn who a client is from its first message; later ones need not say it (X01)."""
        node = request.node
        trusted = self._admission.standing(node, one.context).trusted
        self._admission.limits(trusted).check_size(size)
        if not trusted:
            self._admission.enter(one.context.peer())
            one.is_stranger = True
        one.scope = node.scope
        # What a stranger reports is not read: it is told no names, which are as many as there are clusters.
        clusters = self._clusters.get(node.scope, frozenset()) if trusted else frozenset()
        one.session = LoadSession(self._timing.loads_every, request.supports_all, clusters)
        one.changed.set()
        if node.is_debug:
            return  # a reader carries no traffic
        if trusted:
            # Two streams of a node never begin at the same moment.
            one.stream = LoadStream(node.id, time.time() + next(self._numbers) * 1e-6)
        level = logging.INFO if trusted else logging.DEBUG  # strangers come as often as they like
        log.log(level, "load reports begin", extra={"node": node.id, "peer": one.context.peer(), "counts": trusted})


def _parsing(raw: bytes) -> Parts[LoadRequest]:
    requests = []
    for request in parse_in_parts(raw):
        requests.append(request)
        yield
    return joined(requests)
