"""One gRPC stream: requests to the owner, responses to the client."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import grpc
from grpc.aio import EOF, ServicerContext

from xds_server.stream.protocol.messages import (
    DeltaRequest,
    ProtocolError,
    Response,
    ResponseTooLargeError,
    SotwRequest,
)
from xds_server.stream.server import wire
from xds_server.stream.server.owner import Owner
from xds_server.stream.server.streams import End, InternalError, NotReadyError, Stream, TooManyTypesError

Request = DeltaRequest | SotwRequest
AnyRequest = TypeVar("AnyRequest", DeltaRequest, SotwRequest, Request)


@dataclass(frozen=True, slots=True)
class Dialect:
    """How the messages of a method are parsed and packed."""

    parse: Callable[[bytes], tuple[wire.Node, Request]]
    pack: Callable[[Response, str], bytes]


DELTA = Dialect(wire.parse_delta, wire.pack_delta)
SOTW = Dialect(wire.parse_sotw, wire.pack_sotw)


class WrongTypeError(ProtocolError):
    """A request names no resource type, or another than its service serves (X02)."""


class StalledError(ProtocolError):
    """The client did not read."""


@dataclass(frozen=True, slots=True)
class StreamLoop:
    """The handler of one streaming method; `type_url` is None for the aggregated service."""

    owner: Owner
    dialect: Dialect
    identifier: str
    type_url: str | None = None

    async def serve(self, _requests: object, context: ServicerContext) -> None:
        """Serve until the client closes its side, either side fails, or the server drains."""
        stream = self.owner.open(context.peer(), self.type_url)
        reader = asyncio.create_task(self._read(stream, context))
        writer = asyncio.create_task(self._write(stream, context))
        try:
            await asyncio.wait({reader, writer}, return_when=asyncio.FIRST_COMPLETED)
            if not writer.done() and reader.exception() is None:
                await writer  # the client has nothing more to say: finish answering
            for task in (reader, writer):
                if task.done():
                    task.result()
        except ProtocolError as error:
            await context.abort(status_of(error), str(error))
        finally:
            self.owner.close(stream)
            await _cancel(reader, writer)

    async def _read(self, stream: Stream, context: ServicerContext) -> None:
        while (raw := await context.read()) is not EOF:
            node, request = self.dialect.parse(raw)
            await self.owner.take(stream, node, typed(request, self.type_url))
        stream.outbox.put_nowait(End())

    async def _write(self, stream: Stream, context: ServicerContext) -> None:
        stall = self.owner.timing.stall
        while not isinstance(item := await stream.outbox.get(), End):
            try:
                async with asyncio.timeout(stall):
                    await context.write(self.dialect.pack(item, self.identifier))
            except TimeoutError:
                raise StalledError(f"the client read nothing for {stall:g} s") from None
        if item.error is not None:
            raise item.error


def typed(request: AnyRequest, type_url: str | None) -> AnyRequest:
    """Return the request with its type: the service's if it is a service of one type. Raises WrongTypeError."""
    asked = request.type_url or type_url
    if asked is None:
        raise WrongTypeError("type_url is required on an aggregated stream")
    if type_url is not None and asked != type_url:
        raise WrongTypeError(f"this service serves {type_url}, not {asked}")
    return replace(request, type_url=asked)


async def _cancel(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def status_of(error: ProtocolError) -> grpc.StatusCode:
    """Return the gRPC status a stream or call ends with."""
    match error:
        case ResponseTooLargeError() | TooManyTypesError():
            return grpc.StatusCode.RESOURCE_EXHAUSTED
        case StalledError():
            return grpc.StatusCode.DEADLINE_EXCEEDED
        case NotReadyError():
            return grpc.StatusCode.UNAVAILABLE
        case InternalError():
            return grpc.StatusCode.INTERNAL
        case _:
            return grpc.StatusCode.INVALID_ARGUMENT
