"""What the xDS server reports: to the controller of the same process, and to all who read `/reports` over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from datetime import datetime

from aiohttp import web

from controller.api.contract.reports import PATH, RouteReport
from controller.api.contract.route import RouteKey, RouteKind
from controller.api.timing import REAL, ReportTiming
from controller.decision import Known, SentRequests, Unknown
from controller.observe.proxies import ProxyFacts, ServerFacts
from controller.signals.load_reports import FleetLoads, Load, SentTo
from controller.store.objects import ObjectRef
from xds_server.reports import ReportReader, Reports


class LocalReports:
    """Reads the reports where they are made."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports
        self.silence = ""

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
        self._loads.set_silent("", self._reports.replica(self._clock()).silent)
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

    def _read(self, now: datetime) -> None:
        for report in self._reader.news(self._clock()):
            self._loads.add_report(report, now)


def report_routes(reports: Reports, timing: ReportTiming = REAL.reports) -> tuple[web.RouteDef, ...]:
    """Build the HTTP routes that serve the reports of this replica."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(request)
        reader, loads, clock = reports.follow(), reports.loads(), asyncio.get_running_loop().time
        # Whoever reads may stop at any moment: that is no error of anybody.
        with contextlib.suppress(ConnectionError):
            while True:
                news = await _read(reader, timing.reported_every)
                lines = (*news, *loads.news(clock()), reports.replica(clock()))
                await response.write("".join(f"{one.model_dump_json(by_alias=True)}\n" for one in lines).encode())
        return response

    return (web.get(PATH, stream),)


async def _read(reader: ReportReader, longest: float) -> tuple[RouteReport, ...]:
    """Read what is new of the models, nothing after the longest wait: loads are looked at by then."""
    try:
        async with asyncio.timeout(longest):
            return await anext(reader)
    except TimeoutError:
        return ()
