"""Each response flag that docs/data-plane.md explains, provoked: what stands there is what a user sees."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from datetime import timedelta

import grpc
import pytest
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from controller.api.kubernetes.endpoints import Replica
from tests.support.connections import accepting
from tests.support.data_plane.access_log import Line, but, lines_of
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import Change, managers, routes
from tests.support.data_plane.plane import Plane
from tests.support.waiting import until
from xds_server.resources.access_log import AccessLog

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = [("on-local", "silent=1")]


def told(remote: bool = True, change: Change | None = None, replicas: tuple[Replica, ...] | None = None) -> Wanted:
    changed = {"change": change} if change else {}
    return Wanted(remote=remote, replicas=replicas, access_log=AccessLog.ALL, **changed)


async def said(plane: Plane, model: Model) -> Line:
    (line,) = await lines_of(plane, model)
    return but(line, "status", "flags", "details")


async def raw(model: Model, data: bytes) -> bytes:
    """Send bytes on a connection of their own; return the first line of the answer."""
    host, _, port = model.url.removeprefix("http://").strip("/").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(data)
        return await reader.readline()
    finally:
        writer.close()


async def test_a_replica_that_closes_instead_of_answering(plane: Plane) -> None:
    model = await plane.serve(told(remote=False))
    await plane.ask(model, headers=[("on-local", "reset=before")])
    details = "upstream_reset_before_response_started{connection_termination}"
    assert await said(plane, model) == {"status": 503, "flags": "URX,UC", "details": details}


async def test_a_replica_that_resets_a_stream_of_http2(plane: Plane, backends: Backends) -> None:
    async with resetting(backends.local[0].host) as port:
        model = await plane.serve(told(remote=False, replicas=(Replica(backends.local[0].host, port, ready=True),)))
        async with grpc.aio.insecure_channel(model.url.removeprefix("http://").strip("/")) as channel:
            with pytest.raises(grpc.aio.AioRpcError):
                await channel.unary_unary("/test.Model/Call")(b"")
        line = await said(plane, model)
    assert line["flags"] == "URX,UR"
    assert line["details"].startswith("upstream_reset_before_response_started{remote_reset")


@contextlib.asynccontextmanager
async def resetting(host: str) -> AsyncIterator[int]:
    """Speak just enough HTTP/2 to reset every stream (RFC 9113, sections 6.4 and 6.5)."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(24)  # the preface
            writer.write(b"\0\0\0\4\0\0\0\0\0")
            while True:
                head = await reader.readexactly(9)
                await reader.readexactly(int.from_bytes(head[:3], "big"))
                if head[3] == 1:  # HEADERS; the answer is INTERNAL_ERROR
                    writer.write(b"\0\0\4\3\0" + head[5:] + b"\0\0\0\2")

    async with accepting(answer, host) as (port, _):
        yield port


async def test_a_replica_that_answers_with_no_http(plane: Plane, backends: Backends) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        writer.write(b"HELLO\r\n\r\n")

    async with accepting(answer, backends.local[0].host) as (port, _):
        replica = Replica(backends.local[0].host, port, ready=True)
        model = await plane.serve(told(remote=False, replicas=(replica,)))
        reply = await plane.ask(model)
    assert (reply.status, reply.route) == (502, "local")
    details = "upstream_reset_before_response_started{protocol_error}"
    assert await said(plane, model) == {"status": 502, "flags": "URX,UPE", "details": details}


async def test_what_no_route_is_for(plane: Plane) -> None:
    model = await plane.serve(told())
    assert b" 404 " in await raw(model, b"CONNECT other:80 HTTP/1.1\r\nhost: other\r\n\r\n")
    assert await said(plane, model) == {"status": 404, "flags": "NR", "details": "route_not_found"}


async def test_headers_that_are_too_large(plane: Plane) -> None:
    model = await plane.serve(told())
    assert (await plane.ask(model, headers=[("large", "x" * 70_000)])).status == 431
    assert await said(plane, model) == {"status": 431, "flags": "DPE", "details": "http1.headers_too_large"}


async def test_a_client_that_leaves_in_the_middle_of_its_body(plane: Plane) -> None:
    model = await plane.serve(told())
    host, _, port = model.url.removeprefix("http://").strip("/").partition(":")
    _, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 100\r\n\r\nabc")

    async def has_it() -> bool:
        return await plane.envoy.stat(f"http.{model.key}.downstream_rq_active") == 1

    await until(has_it, "Envoy has the head of the request")
    writer.close()
    assert await said(plane, model) == {"status": 0, "flags": "DC", "details": "downstream_remote_disconnect"}


def with_timeout(route: Route) -> None:
    route.route.timeout.FromTimedelta(timedelta(seconds=0.3))


def soon_idle(manager: HttpConnectionManager) -> None:
    manager.stream_idle_timeout.FromTimedelta(timedelta(seconds=0.3))


def to_nowhere(route: Route) -> None:
    route.route.cluster = "nowhere"


async def test_a_timeout_of_the_route(plane: Plane) -> None:
    model = await plane.serve(told(change=routes(with_timeout)))
    await plane.ask(model, headers=SLOW)
    assert await said(plane, model) == {"status": 504, "flags": "UT", "details": "response_timeout"}


async def test_a_request_on_which_nothing_happens(plane: Plane) -> None:
    model = await plane.serve(told(change=managers(soon_idle)))
    await plane.ask(model, headers=SLOW)
    assert await said(plane, model) == {"status": 504, "flags": "SI", "details": "stream_idle_timeout"}


async def test_a_cluster_that_is_not_there(plane: Plane) -> None:
    model = await plane.serve(told(remote=False, change=routes(to_nowhere)))
    await plane.ask(model)
    assert await said(plane, model) == {"status": 503, "flags": "NC", "details": "cluster_not_found"}
