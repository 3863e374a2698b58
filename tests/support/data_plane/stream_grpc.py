"""A server of gRPC over HTTP/2 without TLS, whatever the service is called; messages are plain bytes.

* `Echo`     one message, one answer
* `Status`   no answer: ends with the status that the message names (a number), with trailers
* `Late`     one answer, then ends as `Status` does
* `Lines`    the lines of its visit, each when the test gives it
* `Ticks`    a number every tenth of a second, for ever
* `Talk`     answers each message as it comes
* `Upload`   any number of messages, one answer: how many bytes and their SHA-256; with `wait` in the metadata the first
             is read only when the test lets it
* `Flood`    as many bytes as the message says
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from controller.api.kubernetes.endpoints import Replica
from tests.support.data_plane.stream_http import CHUNK, TICK_SECONDS
from tests.support.data_plane.visits import Visit, Visits
from tests.support.network import BACKEND_PORT

BINARY = bytes(range(256))
STATUSES = {code.value[0]: code for code in grpc.StatusCode}


class GrpcServer(grpc.GenericRpcHandler):  # type: ignore[misc]
    """One server, in the loop of the test."""

    def __init__(self, name: str, host: str, visits: Visits) -> None:
        self.name, self.host, self.port = name, host, BACKEND_PORT
        self._visits = visits
        self._server: grpc.aio.Server | None = None

    @property
    def replica(self) -> Replica:
        return Replica(self.host, self.port, ready=True)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[GrpcServer]:
        await self.start()
        try:
            yield self
        finally:
            await self.stop()

    async def start(self) -> None:
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        self._server.add_generic_rpc_handlers((self,))
        self._server.add_insecure_port(f"{self.host}:{self.port}")
        await self._server.start()

    async def stop(self) -> None:
        """End everything at once; nobody listens when this returns."""
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(None)

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        kinds: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
            "Echo": (grpc.unary_unary_rpc_method_handler, self._echo),
            "Status": (grpc.unary_unary_rpc_method_handler, self._status),
            "Late": (grpc.unary_stream_rpc_method_handler, self._late),
            "Lines": (grpc.unary_stream_rpc_method_handler, self._lines),
            "Ticks": (grpc.unary_stream_rpc_method_handler, self._ticks),
            "Talk": (grpc.stream_stream_rpc_method_handler, self._talk),
            "Flood": (grpc.unary_stream_rpc_method_handler, self._flood),
            "Upload": (grpc.stream_unary_rpc_method_handler, self._upload),
        }
        handler, behaviour = kinds[details.method.rpartition("/")[2]]
        result: grpc.RpcMethodHandler = handler(behaviour)
        return result

    @contextlib.asynccontextmanager
    async def _visited(self, context: Any) -> AsyncIterator[Visit]:
        metadata = [(name, value) for name, value in context.invocation_metadata()]
        with self._visits.visit(dict(metadata)["probe"], self.name, metadata) as visit:
            await context.send_initial_metadata((("x-served-by", self.name), ("x-bytes-bin", BINARY)))
            context.set_trailing_metadata(_trailers(self.name))
            try:
                yield visit
            except grpc.aio.BaseError:  # what it says to whoever goes on with a call that is over
                raise ConnectionResetError from None

    async def _echo(self, message: bytes, context: Any) -> bytes:
        async with self._visited(context):
            return message

    async def _status(self, message: bytes, context: Any) -> bytes:
        """Fail with the status of the message, if it names no side or this one: `14`, `14 local`."""
        metadata = dict(context.invocation_metadata())
        with self._visits.visit(metadata["probe"], self.name, list(metadata.items())):
            status, _, side = message.decode().partition(" ")
            if not self.name.startswith(side):
                return self.name.encode()
            # Nothing before it: HTTP/2 carries it as the only head of the answer (gRPC, "Trailers-Only").
            await context.abort(STATUSES[int(status)], "for a reason: 100 % ü", _trailers(self.name))
        raise AssertionError

    async def _late(self, message: bytes, context: Any) -> AsyncIterator[bytes]:
        async with self._visited(context):
            yield b"one"
            await context.abort(STATUSES[int(message)], "after one", _trailers(self.name))

    async def _lines(self, _: bytes, context: Any) -> AsyncIterator[bytes]:
        async with self._visited(context) as visit:
            async for line in visit.lines():
                yield line.encode()

    async def _ticks(self, _: bytes, context: Any) -> AsyncIterator[bytes]:
        async with self._visited(context) as visit:
            while True:
                yield b"%d" % visit.sent
                visit.sent += 1
                await asyncio.sleep(TICK_SECONDS)

    async def _talk(self, messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async with self._visited(context) as visit:
            async for message in messages:
                visit.received += 1
                yield b"heard " + message
            await _not_cancelled()

    async def _flood(self, size: bytes, context: Any) -> AsyncIterator[bytes]:
        async with self._visited(context) as visit:
            while visit.sent < int(size):
                yield CHUNK[: int(size) - visit.sent]
                visit.sent += len(CHUNK[: int(size) - visit.sent])

    async def _upload(self, messages: AsyncIterator[bytes], context: Any) -> bytes:
        digest = hashlib.sha256()
        async with self._visited(context) as visit:
            if "wait" in dict(context.invocation_metadata()):
                await visit.go_on.wait()
            async for message in messages:
                visit.take(digest, message)
            await _not_cancelled()
            return f"{visit.received} {digest.hexdigest()}".encode()


async def _not_cancelled() -> None:
    """Give a cancelled call the time to say so: its messages may end a little before."""
    await asyncio.sleep(0.1)


def _trailers(name: str) -> tuple[tuple[str, str | bytes], ...]:
    return ("x-cost", f"42 of {name}"), ("x-detail-bin", BINARY)
