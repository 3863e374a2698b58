"""gRPC without TLS (h2c), with its trailers: on either side, directly and through the internal listener."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from urllib.parse import urlsplit

import grpc
import pytest
import pytest_asyncio
from envoy.config.route.v3.route_components_pb2 import Route

from controller.api.endpoints import Replica
from tests.data_plane.support.loopback import BACKEND_PORT, Network
from tests.data_plane.support.model import Model, Wanted
from tests.data_plane.support.mutation import Change, routes
from tests.data_plane.support.plane import Plane
from tests.data_plane.support.streaming import SERVICE, GrpcServer
from tests.data_plane.support.trap import with_and_without
from tests.data_plane.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# The guarded way is the one through the internal listener, which any of several settings asks for.
WAYS = {
    "local": {"away": 0},
    "remote": {"away": 100},
    "remote, guarded": {"away": 100, "retries": 1},
    "remote, overflowing": {"away": 100, "limit": 1},
    "remote, since no replica is there": {"away": 0, "replicas": ()},
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def servers(network: Network) -> AsyncIterator[dict[str, GrpcServer]]:
    async with (
        GrpcServer("local", network.host(21)).running() as local,
        GrpcServer("remote", network.host(31)).running() as remote,
    ):
        yield {"local": local, "remote": remote}


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest_asyncio.fixture(loop_scope="module")
async def channel(plane: Plane, servers: dict[str, GrpcServer], way: str) -> AsyncIterator[grpc.aio.Channel]:
    replicas = (Replica(servers["local"].host, BACKEND_PORT, ready=True),)
    wanted = Wanted(**{"replicas": replicas, "host": servers["remote"].host, "path_prefix": "", **WAYS[way]})
    model = await plane.serve(wanted)
    async with channel_to(model) as channel:
        yield channel


def channel_to(model: Model) -> grpc.aio.Channel:
    return grpc.aio.insecure_channel(urlsplit(model.url).netloc, options=[("grpc.use_local_subchannel_pool", 1)])


def side_of(way: str) -> str:
    return way.partition(",")[0]


async def test_an_answer_has_its_trailers(channel: grpc.aio.Channel, way: str) -> None:
    call = channel.unary_unary(f"/{SERVICE}/Echo")(b"hello", timeout=10)

    assert await call == f"{side_of(way)} hello".encode()
    assert ("served-by", side_of(way)) in tuple(await call.trailing_metadata())
    assert dict(await call.initial_metadata())["x-beamlit-route"] == side_of(way)


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_a_status_of_the_server_is_the_clients(
    channel: grpc.aio.Channel, way: str, code: grpc.StatusCode
) -> None:
    """HTTP says 200: such a request is not sent again, it may have had an effect."""
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await channel.unary_unary(f"/{SERVICE}/Echo")(str(code.value[0]).encode(), timeout=10)

    assert (raised.value.code(), raised.value.details()) == (code, f"from {side_of(way)}")
    assert ("served-by", side_of(way)) in tuple(raised.value.trailing_metadata())


async def test_each_message_of_a_stream_arrives_as_it_is_sent(
    channel: grpc.aio.Channel, way: str, servers: dict[str, GrpcServer]
) -> None:
    server = servers[side_of(way)]
    call = channel.unary_stream(f"/{SERVICE}/Count")(b"", timeout=20)

    for number in range(4):
        assert await call.read() == f"{side_of(way)} {number}".encode()
        await server.go_on()
    call.cancel()

    async def is_closed() -> bool:
        return server.open == 0

    await until(is_closed, "the server sees that the client is gone")


async def test_both_talk_in_turn(channel: grpc.aio.Channel, way: str) -> None:
    call = channel.stream_stream(f"/{SERVICE}/Talk")(timeout=20)

    for number in range(5):
        await call.write(b"%d" % number)
        assert await call.read() == f"{side_of(way)} {number}".encode()
    await call.done_writing()

    assert await call.read() == grpc.aio.EOF
    assert await call.code() == grpc.StatusCode.OK
    assert ("served-by", side_of(way)) in tuple(await call.trailing_metadata())


def without_the_header(route: Route) -> None:
    del route.route.retry_policy.retriable_headers[:]


@with_and_without(routes(without_the_header))
@pytest.mark.parametrize("wanted", [{"retries": 1}, {"limit": 1}], ids=["guarded", "overflowing"])
async def test_what_envoy_itself_says_to_a_call_is_not_the_clients(
    plane: Plane, servers: dict[str, GrpcServer], wanted: dict[str, int], change: Change, held: bool
) -> None:
    """The internal listener finds nobody and tells so as gRPC does, with HTTP's 200."""
    replicas = (Replica(servers["local"].host, BACKEND_PORT, ready=True),)
    nobody = Wanted(away=100, replicas=replicas, host=plane.network.host(40), path_prefix="", **wanted)
    model = await plane.serve(replace(nobody, change=change))

    async with channel_to(model) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Echo")(b"hello", timeout=10)
        if held:
            assert await call == b"local hello"
        else:
            assert await call.code() == grpc.StatusCode.UNAVAILABLE


async def test_with_nobody_there_the_client_sees_a_status_and_nothing_of_ours(plane: Plane) -> None:
    nobody = Wanted(away=100, replicas=(), host=plane.network.host(40), path_prefix="", retries=1)

    async with channel_to(await plane.serve(nobody)) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Echo")(b"hello", timeout=10)
        assert await call.code() == grpc.StatusCode.UNAVAILABLE
        seen = {name for name, _ in (*await call.initial_metadata(), *await call.trailing_metadata())}
    assert not [name for name in seen if name.startswith(("x-beamlit-un", "x-envoy"))]


@pytest.mark.parametrize(
    ("dead", "wanted"),
    [("local", {}), ("remote", {"away": 100}), ("remote", {"away": 100, "retries": 1})],
    ids=["to remote", "to local", "to local, guarded"],
)
async def test_a_call_fails_over_to_the_side_that_is_there(
    plane: Plane, servers: dict[str, GrpcServer], dead: str, wanted: dict[str, int]
) -> None:
    hosts = {side: plane.network.host(40) if side == dead else servers[side].host for side in servers}
    replicas = (Replica(hosts["local"], BACKEND_PORT, ready=True),)
    model = await plane.serve(Wanted(replicas=replicas, host=hosts["remote"], path_prefix="", **wanted))
    (side,) = servers.keys() - {dead}

    async with channel_to(model) as channel:
        call = channel.unary_unary(f"/{SERVICE}/Echo")(b"hello", timeout=10)
        assert await call == f"{side} hello".encode()
        assert ("served-by", side) in tuple(await call.trailing_metadata())
