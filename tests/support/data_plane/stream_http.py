"""A server of streams over HTTP/1.1: server-sent events, WebSockets, long polls, large bodies.

* `/events`     sends the lines of its visit as events, each when the test gives it; "break" breaks the answer off
* `/ticks`      an event every tenth of a second, for ever
* `/socket`     a WebSocket: `echo` what comes; with `?ticks` a number every tenth of a second, too
                `close CODE` has the server close it
* `/poll`       answers with the first line of its visit, when the test gives it
* `/upload`     reads the body and says what it was; with `?wait` only when the test lets it
* `/download`   as many bytes as `?size=`, for ever without

Anything else is answered with 403.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import WSMsgType, web

from controller.api.kubernetes.endpoints import Replica
from tests.support.data_plane.model_server import tls_with
from tests.support.data_plane.visits import Visit, Visits
from tests.support.network import BACKEND_PORT

TICK_SECONDS = 0.1
CHUNK = bytes(range(256)) * 256


class StreamServer:
    """One server, in the loop of the test; with `tls`, the file of a certificate and its key, over TLS."""

    def __init__(self, name: str, host: str, visits: Visits, tls: Path | None = None) -> None:
        self.name, self.host, self.port = name, host, BACKEND_PORT
        self.healthy = True
        self._tls = tls_with(str(tls)) if tls else None
        self._runner: web.AppRunner | None = None
        self._visits = visits

    @property
    def replica(self) -> Replica:
        return Replica(self.host, self.port, ready=True)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[StreamServer]:
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        app = web.Application(client_max_size=1 << 40)
        app.router.add_get("/healthz", self._health)
        app.router.add_route("*", "/{path:.*}", self._serve)
        runner = self._runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, self.host, self.port, ssl_context=self._tls).start()

    async def stop(self) -> None:
        """End everything at once; nobody listens when this returns."""
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self.healthy else 503)

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        kinds = {
            "events": self._events,
            "ticks": self._ticks,
            "socket": self._socket,
            "poll": self._poll,
            "upload": self._upload,
            "download": self._download,
        }
        headers = [(name.lower(), value) for name, value in request.headers.items()]
        serve = kinds.get(request.path.rpartition("/")[2], self._refuse)
        with self._visits.visit(request.headers["probe"], self.name, headers) as visit:
            return await serve(request, visit)

    async def _events(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        answer = await self._begun(request, "text/event-stream")
        async for line in visit.lines():
            if line == "break" and request.transport:
                request.transport.abort()
                await asyncio.Event().wait()  # until the handler is cancelled for it
            await answer.write(f"data: {line}\n\n".encode())
        await answer.write_eof()
        return answer

    async def _ticks(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        answer = await self._begun(request, "text/event-stream")
        while True:
            await answer.write(f"data: {visit.sent}\n\n".encode())
            visit.sent += 1
            await asyncio.sleep(TICK_SECONDS)

    async def _socket(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)

        async def tick() -> None:
            while True:
                await socket.send_str(str(visit.sent))
                visit.sent += 1
                await asyncio.sleep(TICK_SECONDS)

        ticking = asyncio.create_task(tick()) if "ticks" in request.query else None
        try:
            async for message in socket:
                visit.received += 1
                if message.type == WSMsgType.TEXT and message.data.startswith("close "):
                    await socket.close(code=int(message.data.removeprefix("close ")), message=b"as you like")
                elif message.type == WSMsgType.TEXT:
                    await socket.send_str(f"echo {message.data}")
                elif message.type == WSMsgType.BINARY:
                    await socket.send_bytes(message.data)
        finally:
            visit.closed_with = socket.close_code
            if ticking:
                ticking.cancel()
                await asyncio.gather(ticking, return_exceptions=True)
        # Without a closing frame of the client's (RFC 6455, section 7.1.5) the connection was lost.
        if visit.closed_with in (None, 1006):
            raise ConnectionResetError
        return socket

    async def _poll(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        return web.Response(text=await visit.script.get())

    async def _upload(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        digest = hashlib.sha256()
        if "wait" in request.query:
            await visit.go_on.wait()
        async for data in request.content.iter_any():
            visit.take(digest, data)
        return web.Response(
            text=json.dumps({"servedBy": self.name, "length": visit.received, "sha256": digest.hexdigest()})
        )

    async def _download(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        size = int(request.query.get("size", 1 << 40))
        answer = await self._begun(request, "application/octet-stream")
        digest = hashlib.sha256()
        while visit.sent < size:
            data = CHUNK[: size - visit.sent]
            await answer.write(data)
            digest.update(data)
            visit.sent += len(data)
        visit.digest = digest.hexdigest()
        await answer.write_eof()
        return answer

    async def _refuse(self, request: web.Request, visit: Visit) -> web.StreamResponse:
        return web.Response(status=403)

    async def _begun(self, request: web.Request, content_type: str) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": content_type, "x-served-by": self.name})
        await answer.prepare(request)
        return answer
