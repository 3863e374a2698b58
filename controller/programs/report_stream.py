"""The `/reports` stream over HTTP: see `controller.api.contract.reports`."""

from __future__ import annotations

import asyncio

from aiohttp import web

from controller.api.contract.reports import PATH, RouteReport
from controller.api.timing import REAL, ReportTiming
from xds_server.reports import ReportReader, Reports


def report_routes(reports: Reports, timing: ReportTiming = REAL.reports) -> tuple[web.RouteDef, ...]:
    """Build the HTTP routes that serve the reports of this replica."""

    async def stream(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson", "Cache-Control": "no-store"})
        await response.prepare(request)
        reader, loads, clock = reports.follow(), reports.loads(), asyncio.get_running_loop().time
        while True:
            news = await _read(reader, timing.told_every)
            said = (*news, *loads.news(clock()), reports.replica(clock()))
            await response.write("".join(f"{one.model_dump_json(by_alias=True)}\n" for one in said).encode())

    return (web.get(PATH, stream),)


async def _read(reader: ReportReader, longest: float) -> tuple[RouteReport, ...]:
    """Read what is new of the models, nothing after the longest wait: loads are looked at by then."""
    try:
        async with asyncio.timeout(longest):
            return await anext(reader)
    except TimeoutError:
        return ()
