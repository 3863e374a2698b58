"""What only a client of HTTP/2 can send: trailers, methods of any name and length, and the end of one stream.

And the limits of headers, which it meets in its own way.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace

import pytest
import pytest_asyncio
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import RequestReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived

from controller.api.kubernetes.endpoints import Replica
from tests.support.connections import accepting
from tests.support.data_plane.access_log import but, lines_of
from tests.support.data_plane.model import SHARED_PORT, Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.sealed import api_key, bring
from tests.support.network import BACKEND_PORT, Network
from tests.support.waiting import time_limit, until
from xds_server.resources.access_log import AccessLog

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = api_key("key", "x-key")
Pairs = list[tuple[str, str]]
TRAILERS = [("authorization", "Bearer c"), ("cookie", "a=1"), ("x-key", "c"), ("x-own", "c"), ("checksum", "1")]


@dataclass
class Server:
    """It answers each request that does not ask it to be `silent`, and keeps headers and trailers."""

    host: str
    headers: list[dict[str, str]] = field(default_factory=list)
    trailers: list[Pairs] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Server]:
        async with accepting(self._serve, self.host, BACKEND_PORT):
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        silent = set[int]()
        with contextlib.suppress(ConnectionError):
            writer.write(connection.data_to_send())
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    match event:
                        case RequestReceived(headers=headers, stream_id=stream):
                            self.headers.append({str(name): str(value) for name, value in headers or ()})
                            silent |= {stream} if "silent" in self.headers[-1] else set()
                        case TrailersReceived(headers=trailers):
                            self.trailers.append([(str(name), str(value)) for name, value in trailers or ()])
                        case StreamEnded(stream_id=stream) if stream not in silent:
                            connection.send_headers(stream, [(":status", "200")], end_stream=True)
                writer.write(connection.data_to_send())


@dataclass(frozen=True)
class Sides:
    replica: Server
    remote: Server


@pytest_asyncio.fixture(loop_scope="module")
async def sides(network: Network) -> AsyncIterator[Sides]:
    async with Server(network.host(40)).running() as replica, Server(network.host(41)).running() as remote:
        yield Sides(replica, remote)


async def serve(plane: Plane, sides: Sides, *, guarded: bool, away: int = 100) -> Model:
    bring(plane, {KEY: "ours"})
    return await plane.serve(
        Wanted(
            away=away,
            host=sides.remote.host,
            replicas=(Replica(sides.replica.host, BACKEND_PORT, ready=True),),
            headers_to_add=(("x-own", "ours"),),
            auth=KEY if guarded else None,
            access_log=AccessLog.ALL,
        )
    )


async def begun(
    model: Model,
    *more: tuple[str, str],
    method: str = "POST",
    trailers: Pairs | None = None,
    authority: str = "c.test",
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, H2Connection]:
    """Send one request on a connection of its own."""
    host, _, port = model.url.removeprefix("http://").strip("/").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    connection = H2Connection(H2Configuration(header_encoding="utf-8"))
    connection.initiate_connection()
    start = [(":method", method), (":scheme", "http"), (":authority", authority), (":path", "/a"), *more]
    connection.send_headers(1, start, end_stream=trailers is None)
    if trailers is not None:
        connection.send_headers(1, trailers, end_stream=True)
    writer.write(connection.data_to_send())
    return reader, writer, connection


async def ask(
    model: Model,
    *more: tuple[str, str],
    method: str = "POST",
    trailers: Pairs | None = None,
    authority: str = "c.test",
) -> str:
    """Send one request; return the status."""
    reader, writer, connection = await begun(model, *more, method=method, trailers=trailers, authority=authority)
    try:
        async with time_limit(30):
            while data := await reader.read(65536):
                for event in connection.receive_data(data):
                    match event:
                        case ResponseReceived(headers=headers):
                            return str(dict(headers or ())[":status"])
                        case StreamReset(error_code=code):
                            return f"reset {code}"
    finally:
        writer.close()
    return "closed"


@pytest.mark.parametrize("guarded", [False, True], ids=["direct", "guarded"])
async def test_what_stays_inside_does_not_leave_in_a_trailer(plane: Plane, sides: Sides, guarded: bool) -> None:
    model = await serve(plane, sides, guarded=guarded)

    assert await ask(model, trailers=TRAILERS) == "200"

    assert (len(sides.remote.headers), sides.remote.trailers, sides.replica.headers) == (1, [], [])


async def test_a_replica_gets_the_trailers(plane: Plane, sides: Sides) -> None:
    model = await serve(plane, sides, guarded=False, away=0)

    assert await ask(model, trailers=TRAILERS) == "200"

    (trailers,) = sides.replica.trailers
    assert sorted(trailers) == sorted(TRAILERS)


async def test_a_flood_of_headers_is_refused(plane: Plane, sides: Sides) -> None:
    """As over HTTP/1.1 (test_client_limits.py), but with a reset."""
    model = await serve(plane, sides, guarded=False, away=0)
    floods = {
        "90": [(f"x-{number}", "1") for number in range(90)],
        "101": [(f"x-{number}", "1") for number in range(101)],
        "50 KB": [("x-large", "a" * 50_000)],
        "70 KB": [("x-large", "a" * 70_000)],
    }

    answers = {name: await ask(model, *flood) for name, flood in floods.items()}

    reset = f"reset {ErrorCodes.INTERNAL_ERROR}"
    assert answers == {"90": "200", "101": reset, "50 KB": "200", "70 KB": reset}
    assert len(sides.replica.headers) == 2


async def test_a_header_whose_name_has_an_underscore_is_dropped(plane: Plane, sides: Sides) -> None:
    model = await serve(plane, sides, guarded=False)

    assert await ask(model, ("x_forwarded_for", "1.1.1.1"), ("x-kept", "1")) == "200"

    (headers,) = sides.remote.headers
    assert ("x_forwarded_for" in headers, "x-kept" in headers) == (False, True)


@pytest.mark.parametrize("method", ["TRACE", "trace"])
@pytest.mark.parametrize("guarded", [False, True], ids=["direct", "guarded"])
async def test_no_trace_leaves(plane: Plane, sides: Sides, guarded: bool, method: str) -> None:
    model = await serve(plane, sides, guarded=guarded)

    assert await ask(model, method=method) == "405"

    assert (sides.remote.headers, sides.replica.headers) == ([], [])


async def test_a_line_of_the_access_log_stays_short_whatever_the_method(plane: Plane, sides: Sides) -> None:
    model = await serve(plane, sides, guarded=False)

    assert await ask(model, method="M" * 5_000) == "200"

    (line,) = await lines_of(plane, model)
    assert line["method"] == "M" * 32


async def test_a_client_that_resets_a_stream(plane: Plane, sides: Sides) -> None:
    model = await serve(plane, sides, guarded=False)

    async def has_it() -> bool:
        return len(sides.remote.headers) == 1

    _, writer, connection = await begun(model, ("silent", "1"))
    await until(has_it, "the remote backend has the request")
    connection.reset_stream(1, ErrorCodes.CANCEL)
    writer.write(connection.data_to_send())
    writer.close()

    (line,) = await lines_of(plane, model)
    assert but(line, "status", "flags", "details") == {"status": 0, "flags": "DR", "details": "http2.remote_reset"}


async def test_on_the_shared_port_the_authority_is_the_host(plane: Plane, sides: Sides) -> None:
    replicas = (Replica(sides.replica.host, BACKEND_PORT, ready=True),)
    model = await plane.serve(Wanted(replicas=replicas, hosts=("chat.a", "chat.a:8000")))
    shared = replace(model, url=f"http://{plane.network.host(1)}:{SHARED_PORT}/")
    for authority in ("chat.a", "chat.a.svc:8000", "CHAT.a.svc.cluster.local"):
        assert await ask(shared, authority=authority) == "200", authority
    assert await ask(shared, authority="chat.b") == "404"
    told = [headers[":authority"] for headers in sides.replica.headers]
    assert told == ["chat.a", "chat.a.svc:8000", "chat.a.svc.cluster.local"]
