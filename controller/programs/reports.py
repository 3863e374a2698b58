"""What the xDS server reports: to the controller of the same process, and to all who read `/reports` over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import math
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from aiohttp import web
from pydantic import BaseModel

from controller.api.contract.reports import PATH, RouteReport
from controller.api.contract.route import RouteKey, RouteKind
from controller.api.timing import REAL, ReportTiming
from controller.decision import Known, SentRequests, Unknown
from controller.gateway.bootstrap import HostPort
from controller.observe.proxies import ProxyFacts, ServerFacts
from controller.programs.http_server import http_served, written_within
from controller.programs.lifetime import CannotStartError
from controller.signals.fleet_loads import FleetLoads
from controller.signals.load_reports import Load, SentTo
from controller.store.objects import ObjectRef
from xds_server.reports import ReportReader, Reports
from xds_server.stream.callers import (
    CallerError,
    CannotTellError,
    ShownIdentity,
    TooManyTokensError,
    UnknownCallerError,
    bearer_in,
    fingerprint_of,
)
from xds_server.stream.identity import CONTROLLER
from xds_server.stream.tls import ServerTls, TlsFileError


class LocalReports:
    """Reads the reports where they are made."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self.silence = ""
        # In one process they are known from the start.
        self.ports: frozenset[int] = frozenset()

    def facts(self, ref: ObjectRef) -> ProxyFacts:
        """Return what is reported of the route of one object."""
        report = self._reports.report(RouteKey(RouteKind(ref.kind), ref.namespace, ref.name))
        return ProxyFacts((ServerFacts(report if report.route else None, report.connected),))


class LocalLoads:
    """Reads the loads where they are heard; `clock` is the steady one by which they were."""

    def __init__(self, reports: Reports, clock: Callable[[], float], timing: ReportTiming) -> None:
        self._reports = reports
        self._reader = reports.loads()
        self._clock = clock
        self._loads = FleetLoads(timing)

    def load(self, model: ObjectRef, now: datetime) -> Known[Load] | Unknown:
        """Say what load a model has."""
        self._read(now)
        self._loads.set_silent("", self._reports.replica(self._clock()).silent, now)
        return self._loads.load(model, now)

    def traffic(
        self, model: ObjectRef, remotes: Iterable[str], since: datetime, now: datetime
    ) -> SentRequests | Unknown:
        """Count what was sent lately."""
        self._read(now)
        return self._loads.traffic(model, remotes, since, now)

    def news(self, now: datetime) -> frozenset[SentTo]:
        """Say where requests were sent since this was asked last."""
        self._read(now)
        return self._loads.news(now)

    def changed(self, now: datetime) -> frozenset[ObjectRef]:
        """Say of which objects anything was counted since this was asked last."""
        self._read(now)
        return self._loads.changed(now)

    def forget(self, model: ObjectRef) -> None:
        """Forget what was counted of an object that is gone."""
        self._loads.forget(model)

    def _read(self, now: datetime) -> None:
        for report in self._reader.news(self._clock()):
            self._loads.add_report(report, now)


def report_routes(reports: Reports, timing: ReportTiming = REAL.reports) -> tuple[web.RouteDef, ...]:
    """Build the HTTP routes that serve the reports of this replica."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(request)
        reader, loads, clock = reports.follow(), reports.loads(), asyncio.get_running_loop().time
        told_at = -math.inf
        # Whoever reads may stop at any moment: that is no error of anybody.
        ends = clock() + timing.told_for
        with contextlib.suppress(ConnectionError):
            # What follows it ends the list of all routes, so nothing is told before that is there.
            news = await _whole(reader, response, timing.reported_every)
            while clock() < ends:
                lines: list[BaseModel] = [*news, *loads.news(clock())]
                # Loads are told as often as there are new ones: who the Envoys are is long, and needs no telling then.
                if news or clock() >= told_at + timing.reported_every:
                    lines.append(reports.replica(clock()))
                    told_at = clock()
                await _write(request, response, lines, timing.stall)
                news = await _read(reader, told_at + timing.reported_every - clock())
        return response

    return (web.get(PATH, stream),)


def refused_reports() -> tuple[web.RouteDef, ...]:
    """Build the routes that say where the reports are, at an address whose visitors nobody knows."""

    async def answer(_: web.Request) -> web.Response:
        words = "reports are served over TLS (--reports-address), or on a loopback address, or with --insecure-xds\n"
        return web.Response(text=words, status=403)

    return (web.get(PATH, answer),)


@contextlib.asynccontextmanager
async def reports_over_tls(
    address: HostPort, tls: ServerTls, routes: Iterable[web.RouteDef], shutdown: float
) -> AsyncIterator[int]:
    """Serve the reports to controllers, by what they show; yield the port. Raises CannotStartError."""

    @web.middleware
    async def for_controllers(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            caller = await tls.callers.caller(_shown_by(request))
        except CallerError as error:
            return web.Response(text=f"{error}\n", status=_status_of(error))
        if CONTROLLER not in caller.granted:
            return web.Response(text="the client is no controller\n", status=403)
        try:
            async with tls.callers.call_of(caller):
                return await handler(request)
        except CallerError:
            # Its answer has begun, and cannot be taken back.
            if request.transport:
                request.transport.abort()
            return web.Response(status=403)

    app = web.Application(middlewares=[for_controllers])
    app.add_routes(routes)
    async with contextlib.AsyncExitStack() as stack:
        try:
            port = await stack.enter_async_context(http_served(app, address, shutdown, tls.context()))
        except OSError as error:
            raise CannotStartError(f"--reports-address {address}: {error.strerror or error}") from error
        except TlsFileError as error:
            raise CannotStartError(f"--tls-cert, --tls-key, --client-ca: {error}") from error
        yield port


def _shown_by(request: web.Request) -> ShownIdentity:
    """Read what a client shows over HTTP."""
    connection: ssl.SSLObject | None = request.transport.get_extra_info("ssl_object") if request.transport else None
    certificate = connection.getpeercert(binary_form=True) if connection else None
    names = names_in((connection.getpeercert() if connection else None) or {})
    bearer = bearer_in(*request.headers.getall("Authorization", ()))
    return ShownIdentity(names, fingerprint_of(certificate) if certificate else "", bearer, request.remote or "")


def _status_of(error: CallerError) -> int:
    """Return the status of HTTP for who may not read the reports."""
    match error:
        case UnknownCallerError():
            return 401
        case CannotTellError():
            return 503
        case TooManyTokensError():
            return 429
        case _:
            return 403


def names_in(certificate: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the URIs and DNS names of a client's certificate, as Python's `ssl` tells them."""
    return tuple(name for kind, name in certificate.get("subjectAltName", ()) if kind in ("URI", "DNS"))


async def _write(request: web.Request, response: web.StreamResponse, lines: Iterable[BaseModel], stall: float) -> None:
    """Write lines. Raises ConnectionError, also of whoever reads nothing for so many seconds: that one is cut off.

    He comes again and is told everything.
    """
    async with written_within(stall, request):
        await response.write("".join(f"{one.model_dump_json(by_alias=True)}\n" for one in lines).encode())


async def _whole(reader: ReportReader, response: web.StreamResponse, every: float) -> tuple[RouteReport, ...]:
    """Read the list of all routes. Meanwhile a space each so many seconds, which JSON ignores, is a sign of life."""
    reading = asyncio.ensure_future(anext(reader))
    try:
        while not (await asyncio.wait((reading,), timeout=every))[0]:
            await response.write(b" ")
        return reading.result()
    finally:
        reading.cancel()


async def _read(reader: ReportReader, longest: float) -> tuple[RouteReport, ...]:
    """Read what is new of the models; nothing when there are new loads, and after the longest wait (seconds)."""
    try:
        async with asyncio.timeout(longest):
            return await anext(reader)
    except TimeoutError:
        return ()
