"""Servers of long exchanges, in the process of the test so that it sees what they see: HTTP streams and gRPC."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator

import grpc
from aiohttp import WSMsgType, web

from tests.data_plane.support.loopback import BACKEND_PORT

CHUNK = b"x" * 65_536
SERVICE = "test.Streams"


class StreamServer:
    """One HTTP/1.1 server. `name` stands in each answer; an event or a chunk leaves when `go_on` lets it.

    * `GET /sse?events=3` sends so many events, the first at once
    * `GET /poll` answers when it may go on
    * `POST /upload` tells the length and the digest of the body
    * `GET /download?chunks=9` sends so many chunks of 64 KiB as fast as they are taken
    * `GET /ws` is a WebSocket that sends back what it gets
    """

    def __init__(self, name: str, host: str) -> None:
        self.name, self.host = name, host
        self.open = 0
        """How many exchanges are going on."""
        self.aborted = 0
        """How many ended because the client went away."""
        self.sent = 0
        """Chunks of downloads that were taken."""
        self._steps = asyncio.Condition()
        self._allowed = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[StreamServer]:
        app = web.Application(client_max_size=0)
        app.router.add_get("/sse", self._counted(self._sse))
        app.router.add_get("/poll", self._counted(self._poll))
        app.router.add_get("/download", self._counted(self._download))
        app.router.add_get("/ws", self._counted(self._ws))
        app.router.add_post("/upload", self._counted(self._upload))
        runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, self.host, BACKEND_PORT).start()
        try:
            yield self
        finally:
            await runner.cleanup()

    async def go_on(self, steps: int = 1) -> None:
        """Let everything that waits take so many steps more."""
        async with self._steps:
            self._allowed += steps
            self._steps.notify_all()

    async def _step(self, number: int) -> None:
        async with self._steps:
            await self._steps.wait_for(lambda: self._allowed >= number)

    def _counted(self, handler):
        async def counted(request: web.Request) -> web.StreamResponse:
            self.open += 1
            try:
                return await handler(request)
            except (asyncio.CancelledError, ConnectionResetError):
                self.aborted += 1
                raise
            finally:
                self.open -= 1

        return counted

    async def _sse(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream", "x-served-by": self.name})
        await response.prepare(request)
        start = self._allowed
        for number in range(int(request.query["events"])):
            await self._step(start + number)
            await response.write(b"data: %s %d\n\n" % (self.name.encode(), number))
        await response.write_eof()
        return response

    async def _poll(self, _: web.Request) -> web.StreamResponse:
        await self._step(self._allowed + 1)
        return web.Response(text=self.name)

    async def _upload(self, request: web.Request) -> web.StreamResponse:
        digest, length = hashlib.sha256(), 0
        async for piece in request.content.iter_any():
            digest.update(piece)
            length += len(piece)
        return web.json_response({"by": self.name, "length": length, "sha256": digest.hexdigest()})

    async def _download(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"x-served-by": self.name})
        await response.prepare(request)
        for _ in range(int(request.query["chunks"])):
            await response.write(CHUNK)
            self.sent += 1
        await response.write_eof()
        return response

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type == WSMsgType.TEXT:
                await socket.send_str(f"{self.name} {message.data}")
        return socket


class GrpcServer:
    """One gRPC server (h2c) whose messages are plain bytes. It names itself in each answer and in a trailer.

    * `Echo` (unary) sends the request back, or ends with the status whose number is its text
    * `Count` (server stream) sends 0, then 1, 2, ... as it may go on, for ever
    * `Talk` (both ways) sends back each message
    """

    def __init__(self, name: str, host: str) -> None:
        self.name, self.host = name, host
        self.open = 0
        self.aborted = 0
        self._steps = asyncio.Condition()
        self._allowed = 0

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[GrpcServer]:
        server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        handlers = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Count": grpc.unary_stream_rpc_method_handler(self._count),
            "Talk": grpc.stream_stream_rpc_method_handler(self._talk),
        }
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        server.add_insecure_port(f"{self.host}:{BACKEND_PORT}")
        await server.start()
        try:
            yield self
        finally:
            await server.stop(0)

    async def go_on(self, steps: int = 1) -> None:
        """Let every `Count` send so many numbers more."""
        async with self._steps:
            self._allowed += steps
            self._steps.notify_all()

    async def _step(self, number: int) -> None:
        async with self._steps:
            await self._steps.wait_for(lambda: self._allowed >= number)

    async def _echo(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        context.set_trailing_metadata((("served-by", self.name),))
        if request.isdigit():
            code = next(one for one in grpc.StatusCode if one.value[0] == int(request))
            await context.abort(code, f"from {self.name}")
        return self.name.encode() + b" " + request

    async def _count(self, _: bytes, context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        context.set_trailing_metadata((("served-by", self.name),))
        self.open += 1
        start = self._allowed
        try:
            for number in itertools.count():
                await self._step(start + number)
                yield b"%s %d" % (self.name.encode(), number)
        except asyncio.CancelledError:
            self.aborted += 1
            raise
        finally:
            self.open -= 1

    async def _talk(self, requests: AsyncIterator[bytes], context: grpc.aio.ServicerContext) -> AsyncIterator[bytes]:
        context.set_trailing_metadata((("served-by", self.name),))
        async for request in requests:
            yield self.name.encode() + b" " + request
