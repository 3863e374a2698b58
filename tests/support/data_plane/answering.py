"""A replica in this process that takes its time: slow answers, streams of events, and calls of gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from aiohttp import web

from tests.support.waiting import until

HTTP_PORT, GRPC_PORT = 8000, 8001
STREAM, CALL = "/test.Model/Stream", "/test.Model/Call"


@dataclass
class Answering:
    """The replica: how many requests it holds, and when it may answer them."""

    held: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def hold(self, _: web.Request) -> web.Response:
        self.held += 1
        await self.released.wait()
        return web.Response()

    async def holds(self, number: int) -> None:
        """Wait until it holds so many."""

        async def has_them() -> bool:
            return self.held >= number

        await until(has_them, f"the replica holds {number}", within=30)


@contextlib.asynccontextmanager
async def answering(host: str) -> AsyncIterator[Answering]:
    """Serve HTTP/1.1 and gRPC.

    `GET /held` is answered when the test lets it, `GET /?seconds=1` after a second, `GET /events?count=3&every=0.1`
    with so many events, each after so long. The message of a call says the same: `seconds`, or `count every`.
    """
    replica = Answering()
    app = web.Application()
    app.add_routes([web.get("/held", replica.hold), web.get("/events", _events), web.route("*", "/{any:.*}", _answer)])
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, handler_cancellation=True)
    await runner.setup()
    await web.TCPSite(runner, host, HTTP_PORT, backlog=4096).start()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Model()])
    server.add_insecure_port(f"{host}:{GRPC_PORT}")
    await server.start()
    try:
        yield replica
    finally:
        await server.stop(0)
        await runner.cleanup()


async def _answer(request: web.Request) -> web.Response:
    await asyncio.sleep(float(request.query.get("seconds", 0)))
    return web.Response(body=b"x" * int(request.query.get("size", 2)))


async def _events(request: web.Request) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await answer.prepare(request)
    for number in range(int(request.query["count"])):
        await asyncio.sleep(float(request.query["every"]))
        await answer.write(b"data: %d\n\n" % number)
    return answer


class _Model(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, details: Any) -> Any:
        if details.method == STREAM:
            return grpc.unary_stream_rpc_method_handler(_stream)
        return grpc.unary_unary_rpc_method_handler(_call)


async def _call(request: bytes, _: Any) -> bytes:
    await asyncio.sleep(float(request))
    return b"ok"


async def _stream(request: bytes, _: Any) -> AsyncIterator[bytes]:
    count, every = request.split()
    for number in range(int(count)):
        await asyncio.sleep(float(every))
        yield b"%d" % number
