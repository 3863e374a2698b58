"""The discovery services: which gRPC methods there are, and how a stream or a call of each is served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import grpc
from grpc.aio import EOF, ServicerContext

from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SCOPED_ROUTE, SECRET
from xds_server.stream import wire
from xds_server.stream.admission import ClientAdmission
from xds_server.stream.endings import cancelled, end_call
from xds_server.stream.limits import LONG_MESSAGE, LONGEST_WORD, printable
from xds_server.stream.load_reporting.streams import LRS, LoadStreams
from xds_server.stream.protocol.messages import (
    DeltaRequest,
    ProtocolError,
    Response,
    SotwRequest,
)
from xds_server.stream.protocol.parts import Parts, at_once
from xds_server.stream.server.clients import ClientStream, StreamEnd
from xds_server.stream.server.sessions import Sessions

ADS = "envoy.service.discovery.v3.AggregatedDiscoveryService"

# Service and the plural its methods are named with.
PER_TYPE: Mapping[str, tuple[str, str]] = {
    CLUSTER: ("envoy.service.cluster.v3.ClusterDiscoveryService", "Clusters"),
    ENDPOINT: ("envoy.service.endpoint.v3.EndpointDiscoveryService", "Endpoints"),
    LISTENER: ("envoy.service.listener.v3.ListenerDiscoveryService", "Listeners"),
    ROUTE: ("envoy.service.route.v3.RouteDiscoveryService", "Routes"),
    SCOPED_ROUTE: ("envoy.service.route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes"),
    SECRET: ("envoy.service.secret.v3.SecretDiscoveryService", "Secrets"),
}

NAMES = (ADS, *(service for service, _ in PER_TYPE.values()), LRS)

Request = DeltaRequest | SotwRequest
T = TypeVar("T")
AnyRequest = TypeVar("AnyRequest", DeltaRequest, SotwRequest, Request)


def handlers(sessions: Sessions, loads: LoadStreams, identifier: str) -> tuple[grpc.GenericRpcHandler, ...]:
    """Return the handlers of all discovery services, and of load reporting. They take and give bytes."""
    delta = DialectCodec(wire.DeltaParser().parse, wire.pack_delta)
    aggregated = {
        "StreamAggregatedResources": _stream(StreamingMethod(sessions, SOTW, identifier)),
        "DeltaAggregatedResources": _stream(StreamingMethod(sessions, delta, identifier)),
    }
    per_type = [
        grpc.method_handlers_generic_handler(
            service,
            {
                f"Stream{plural}": _stream(StreamingMethod(sessions, SOTW, identifier, type_url)),
                f"Delta{plural}": _stream(StreamingMethod(sessions, delta, identifier, type_url)),
                f"Fetch{plural}": _fetch(sessions, identifier, type_url),
            },
        )
        for type_url, (service, plural) in PER_TYPE.items()
    ]
    reporting = {"StreamLoadStats": grpc.stream_stream_rpc_method_handler(loads.serve)}
    return (
        grpc.method_handlers_generic_handler(ADS, aggregated),
        grpc.method_handlers_generic_handler(LRS, reporting),
        *per_type,
    )


def _stream(method: StreamingMethod) -> grpc.RpcMethodHandler:
    return grpc.stream_stream_rpc_method_handler(method.serve)


def _fetch(sessions: Sessions, identifier: str, type_url: str) -> grpc.RpcMethodHandler:
    admission = sessions.admission

    async def fetch(raw: bytes, context: ServicerContext) -> bytes:
        try:
            with admission.visit(context.peer()):
                async with admission.turn_of_strangers():
                    node, request = await _in_parts(wire.parse_sotw(raw), len(raw) > LONG_MESSAGE, admission)
                    standing = admission.standing(node, context)
                    admission.limits(standing.trusted).check(len(raw), request)
                    response = await sessions.fetch(node, typed(request, type_url), standing)
                    return await _packed(SOTW, response, identifier, admission)
        except ProtocolError as error:
            await end_call(context, error)
            return b""

    return grpc.unary_unary_rpc_method_handler(fetch)


@dataclass(frozen=True, slots=True)
class DialectCodec:
    """How the messages of a dialect are parsed and packed, in parts."""

    parse: Callable[[bytes], Parts[tuple[wire.Node, Request]]]
    pack: Callable[[Response, str], Parts[bytes]]


SOTW = DialectCodec(wire.parse_sotw, wire.pack_sotw)


async def _parsed(codec: DialectCodec, raw: bytes, admission: ClientAdmission) -> tuple[wire.Node, Request]:
    return await _in_parts(codec.parse(raw), len(raw) > LONG_MESSAGE, admission)


async def _packed(codec: DialectCodec, response: Response, identifier: str, admission: ClientAdmission) -> bytes:
    return await _in_parts(codec.pack(response, identifier), wire.is_long(response), admission)


async def _in_parts(parts: Parts[T], is_long: bool, admission: ClientAdmission) -> T:
    return await admission.in_turns(parts) if is_long else at_once(parts)


class WrongTypeError(ProtocolError):
    """A request names no resource type, or another than its service serves (X02)."""


class StalledError(ProtocolError):
    """The client did not read."""

    code = "DEADLINE_EXCEEDED"


@dataclass(frozen=True, slots=True)
class StreamingMethod:
    """The handler of one streaming method; `type_url` is None for the aggregated service."""

    sessions: Sessions
    codec: DialectCodec
    identifier: str
    type_url: str | None = None

    async def serve(self, _requests: object, context: ServicerContext) -> None:
        """Serve until the client closes its side, either side fails, or the server drains."""
        # Sent by itself: gRPC would send it with the first message, and once more with an end that comes meanwhile.
        await context.send_initial_metadata(())
        stream = self.sessions.streams.open(context.peer(), self.type_url)
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
            await end_call(context, error)
        finally:
            self.sessions.close(stream)
            await cancelled(reader, writer)

    async def _read(self, stream: ClientStream, context: ServicerContext) -> None:
        admission = self.sessions.admission
        raw = await admission.first_word(context.read, self.sessions.timing.first_word)
        first: Request | None = None
        if raw is not EOF:
            async with admission.turn_of_newcomers():
                node, first = await _parsed(self.codec, raw, admission)
                self.sessions.streams.introduce(stream, node, admission.standing(node, context))
        while raw is not EOF:
            if stream.trusted:
                await self._take(stream, raw, first)
            else:
                await self.sessions.begun()  # not in its turn: who comes after it may ask what can be answered
                async with admission.turn_of_strangers():
                    await self._take(stream, raw, first)
            raw, first = await context.read(), None
        self.sessions.finish(stream)

    async def _take(self, stream: ClientStream, raw: bytes, parsed: Request | None) -> None:
        admission = self.sessions.admission
        request = parsed or (await _parsed(self.codec, raw, admission))[1]
        admission.limits(stream.trusted).check(len(raw), request)
        await self.sessions.handle(stream, typed(request, self.type_url))

    async def _write(self, stream: ClientStream, context: ServicerContext) -> None:
        stall = self.sessions.timing.stall
        while not isinstance(item := await stream.outbox.get(), StreamEnd):
            size = 0 if stream.trusted else sum(len(one.body) for one in item.resources)
            async with self.sessions.admission.room_for(stream.trusted, size):
                try:
                    packed = await _packed(self.codec, item, self.identifier, self.sessions.admission)
                    async with asyncio.timeout(stall):
                        await context.write(packed)
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
        raise WrongTypeError(f"this service serves {type_url}, not {printable(asked, LONGEST_WORD)}")
    return request if request.type_url else replace(request, type_url=asked)
