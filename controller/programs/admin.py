"""The admin address of a program: health, metrics, and HTTP routes of its own."""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web
from prometheus_client import Info
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from controller.api.timing import REAL
from controller.gateway.bootstrap import HostPort
from controller.programs.http_server import STRANGERS, HttpBounds, http_served, written_within
from controller.programs.lifetime import CannotStartError
from controller.programs.metrics_page import MetricsPage, ProgramRegistry


def process_registry(program: str) -> ProgramRegistry:
    """Make a registry of metrics; it has those of this process, and says which version of which program it is."""
    registry = ProgramRegistry()
    Info("beamlit_build", "The program and its version; always 1.", registry=registry).info(
        {
            "program": program,
            "version": importlib.metadata.version("beamlit-controller"),
            "python": platform.python_version(),
        }
    )
    ProcessCollector(registry=registry)
    GCCollector(registry=registry)
    return registry


@dataclass(frozen=True, slots=True)
class Admin:
    """What is served there: whether the program is ready (or why not), its metrics, and routes of its own.

    `refresh` is awaited before the metrics are shown. When the program ends, requests have `shutdown` seconds to end.
    """

    not_ready: Callable[[], str | None]
    metrics: ProgramRegistry
    routes: Sequence[web.RouteDef] = ()
    refresh: Callable[[], Awaitable[None]] | None = None
    shutdown: float = REAL.shutdown
    bounds: HttpBounds = STRANGERS
    _page: MetricsPage = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # One for all addresses at which this is served.
        object.__setattr__(self, "_page", MetricsPage(self.metrics, self.refresh))

    @contextlib.asynccontextmanager
    async def served(self, option: str, address: HostPort) -> AsyncIterator[int]:
        """Serve on `address` (port 0: any) and yield the port. Raises CannotStartError, which names `option`."""
        app = web.Application(middlewares=[_only_this_host] if address.is_loopback else [])
        app.add_routes(
            [
                *self.routes,
                web.get("/metrics", self._metrics),
                web.get("/livez", self._livez),
                web.get("/readyz", self._readyz),
                # As the original's deployment probes it.
                web.get("/healthz", self._livez),
            ]
        )
        async with contextlib.AsyncExitStack() as stack:
            try:
                port = await stack.enter_async_context(http_served(app, address, self.shutdown, bounds=self.bounds))
            except OSError as error:
                raise CannotStartError(f"{option} {address}: {error.strerror or error}") from error
            yield port

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        text = memoryview(await self._page.text())
        response = web.StreamResponse(
            headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4, "Content-Length": str(len(text))}
        )
        # Whoever reads may stop at any moment: that is no error of anybody.
        with contextlib.suppress(ConnectionError):
            await response.prepare(request)
            if request.method != "HEAD":
                async with written_within(self.bounds.answer, request):
                    for start in range(0, len(text), _PIECE):
                        await response.write(text[start : start + _PIECE])
                    await response.write_eof()
        return response

    async def _livez(self, _: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    async def _readyz(self, _: web.Request) -> web.Response:
        reason = self.not_ready()
        return web.Response(text=f"{reason}\n", status=503) if reason else web.Response(text="ok\n")


_PIECE = 64 * 1024
"""Bytes of the metrics that are written at once. All of them would be copied for each who does not read them."""


@web.middleware
async def _only_this_host(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """Refuse who asks for a name: a page of the web can have its own name resolve to this host (DNS rebinding).

    Otherwise whatever a user's browser shows could read what is for that user alone.
    """
    if not _is_of_this_host(request.host):
        words = "this address is for programs of this host: ask for localhost, or its IP address\n"
        return web.Response(text=words, status=403)
    return await handler(request)


def _is_of_this_host(asked: str) -> bool:
    try:
        host = urlsplit(f"//{asked}").hostname or ""
    except ValueError:
        return False
    return host == "localhost" or _is_address(host)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def report_route(report: Callable[[], Mapping[str, Any]]) -> web.RouteDef:
    """Build the route behind which `beamlit status` finds its report."""

    async def answer(_: web.Request) -> web.Response:
        return web.json_response(report())

    return web.get("/status", answer)
