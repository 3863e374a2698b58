"""A client that goes away: the server that works for it sees that at once, whichever way the request took.

The ways are played together, one request by each: all begin, all go on, and then all clients go.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import grpc
import pytest

from tests.support.data_plane.model import Model
from tests.support.data_plane.stage import WAYS, Stage, address_of
from tests.support.data_plane.stream_grpc import GrpcServer
from tests.support.data_plane.stream_http import StreamServer
from tests.support.waiting import time_limit, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What a client does until it goes away: on entering it is under way, on leaving the client is gone.
Client = Callable[[Stage, Model, str], AbstractAsyncContextManager[None]]

# So many clients, one after another, may come to a server directly and be missed until one is that left an Envoy. And
# between them Envoy has had its turns: it has answered another client each time.
_AT_ONCE = 50


def over_http1(path: str, body: bool = False) -> Client:
    """Send a request on a connection that is reset when the client goes, as the kernel does for a killed process."""

    @contextlib.asynccontextmanager
    async def client(stage: Stage, model: Model, probe: str) -> AsyncIterator[None]:
        host, _, port = address_of(model).partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        method = "POST" if body else "GET"
        more = "content-length: 1000000\r\n" if body else ""
        writer.write(f"{method} /v1/{path} HTTP/1.1\r\nhost: x\r\nprobe: {probe}\r\n{more}\r\n".encode())
        if body:
            writer.write(b"the first part of it")
        if path in ("ticks", "download"):
            assert (await reader.readline()).startswith(b"HTTP/1.1 200")
        await stage.visits[probe].begun.wait()
        yield
        writer.close()

    return client


@contextlib.asynccontextmanager
async def websocket(stage: Stage, model: Model, probe: str) -> AsyncIterator[None]:
    socket = await stage.session.ws_connect(f"{model.url}v1/socket?ticks", headers={"probe": probe})
    assert (await socket.receive()).data == "0"
    yield
    assert socket._response.connection and socket._response.connection.transport
    socket._response.connection.transport.abort()
    await socket.close()


def grpc_call(kind: str, method: str, reads: bool) -> Client:
    @contextlib.asynccontextmanager
    async def client(stage: Stage, model: Model, probe: str) -> AsyncIterator[None]:
        async with stage.channel(model) as channel:
            metadata = (("probe", probe),)
            call: Any = getattr(channel, kind)(f"/any.Service/{method}")
            call = call(metadata=metadata) if kind.startswith("stream") else call(b"x", metadata=metadata)
            if kind == "stream_stream":
                await call.write(b"x")
            waiting = asyncio.ensure_future(call.read() if reads else call.wait_for_connection())
            if reads:
                await waiting
            await stage.visits[probe].begun.wait()
            yield
            waiting.cancel()
            call.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            assert await call.code() is grpc.StatusCode.CANCELLED

    return client


CLIENTS: dict[str, tuple[str, Client]] = {
    "events": ("http", over_http1("ticks")),
    "silent-events": ("http", over_http1("events")),
    "long-poll": ("http", over_http1("poll")),
    "unread-download": ("http", over_http1("download")),
    "upload": ("http", over_http1("upload", body=True)),
    "websocket": ("http", websocket),
    "grpc-stream": ("rpc", grpc_call("unary_stream", "Ticks", reads=True)),
    "silent-grpc-stream": ("rpc", grpc_call("unary_stream", "Lines", reads=False)),
    "grpc-talk": ("rpc", grpc_call("stream_stream", "Talk", reads=True)),
    "grpc-upload": ("rpc", grpc_call("stream_unary", "Upload", reads=False)),
}


@pytest.mark.parametrize("kind", CLIENTS)
async def test_the_server_sees_that_the_client_went_away(stage: Stage, kind: str) -> None:
    protocol, client = CLIENTS[kind]
    wanted = [getattr(stage, protocol).wanted(way) for way in WAYS]
    models = dict(zip(WAYS, await asyncio.gather(*map(stage.plane.serve, wanted)), strict=True))
    other = await stage.plane.serve(stage.http.wanted())
    probes = {way: stage.probe() for way in WAYS}
    visits = {way: stage.visits[probe] for way, probe in probes.items()}

    at_the_server = replace(models["local"], url=address_at(getattr(stage, protocol).local[0]))

    async def comes_and_is_missed() -> None:
        """Wait for as long as a client without Envoy takes for both."""
        probe = stage.probe()
        async with client(stage, at_the_server, probe):
            pass
        await until(stage.visits[probe].over.is_set, "the server sees it", within=60)

    async with contextlib.AsyncExitStack() as clients, time_limit(60):
        for way in WAYS:
            await clients.enter_async_context(client(stage, models[way], probes[way]))
        assert {way: WAYS[way] for way, visit in visits.items() if not visit.served_by.startswith(WAYS[way])} == {}
        await comes_and_is_missed()
        assert [way for way, visit in visits.items() if visit.over.is_set()] == []

    for _ in range(_AT_ONCE):
        if all(visit.over.is_set() for visit in visits.values()):
            break
        await comes_and_is_missed()
        await stage.plane.ask(other)
    assert [way for way, visit in visits.items() if not visit.over.is_set()] == []
    assert {way: visit.ended for way, visit in visits.items()} == dict.fromkeys(WAYS, "aborted")
    assert {visit.closed_with for visit in visits.values()} <= {None, 1006}
    assert {way: stage.visits.attempts[probe] for way, probe in probes.items()} == dict.fromkeys(WAYS, 1)

    # Nor does Envoy go on with it.
    keys = "|".join(str(model.key) for model in models.values())

    async def nothing_is_left() -> bool:
        active = await stage.plane.envoy.stats(rf"^(http|cluster)\..*({keys})\b.*(rq_active|upgrades_active)$")
        return sum(active.values()) == 0

    await until(nothing_is_left, f"no request of {keys} is under way", within=30)
    await asyncio.gather(*map(stage.plane.withdraw, (*models.values(), other)))


def address_at(server: StreamServer | GrpcServer) -> str:
    return f"http://{server.host}:{server.port}/"
