"""The admin address: status for people and `beamlit status`, metrics for Prometheus, health for whoever restarts us."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from controller.cli.bootstrap import HostPort


@dataclass(frozen=True, slots=True)
class Admin:
    """What the admin address shows: the report behind `/status`, whether we are ready (or why not), the metrics."""

    report: Callable[[], Mapping[str, Any]]
    not_ready: Callable[[], str | None]
    metrics: CollectorRegistry

    @contextlib.asynccontextmanager
    async def served(self, address: HostPort) -> AsyncIterator[int]:
        """Serve on `address` (port 0: any) and yield the port. Raises OSError when the address cannot be had."""
        app = web.Application()
        app.add_routes(
            [
                web.get("/status", self._status),
                web.get("/metrics", self._metrics),
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
            ]
        )
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            site = web.TCPSite(runner, address.host, address.port)
            await site.start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    async def _status(self, _: web.Request) -> web.Response:
        return web.json_response(self.report())

    async def _metrics(self, request: web.Request) -> web.Response:
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        return web.Response(body=encode(self.metrics), headers={"Content-Type": content_type})

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = self.not_ready()
        return web.Response(text=f"{reason}\n", status=503) if reason else web.Response(text="ok\n")
