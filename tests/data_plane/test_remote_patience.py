"""`remoteBackend.timeouts` and `remoteBackend.retry`: how long and how often the remote backend is asked."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from datetime import timedelta

import httpx
import pytest
from aiohttp import web
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route

from controller.api.route import HttpCheck
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import Change, clusters, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import with_and_without
from tests.support.load import Traffic, closed_loop
from tests.support.network import BACKEND_PORT, Network
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = timedelta(milliseconds=300)


def without_timeout(route: Route) -> None:
    route.route.timeout.FromTimedelta(timedelta(0))


def without_retries(route: Route) -> None:
    if not route.response_headers_to_add:  # the one of the internal listener
        route.route.ClearField("retry_policy")


@with_and_without(routes(without_timeout))
@pytest.mark.parametrize("away", [50, 100])
async def test_a_remote_that_never_answers_fails_no_request(
    plane: Plane, away: int, change: Change, held: bool
) -> None:
    model = await plane.serve(Wanted(away=away, answer_timeout=PATIENCE, change=change))

    report = await closed_loop(
        model.url, clients=50, requests=200, traffic=Traffic(headers=lambda _: {"on-remote": "delay=30"}, timeout=2)
    )

    assert (report.errors == {}) is held
    assert (report.summary.local == 200) is held


async def test_an_answer_that_takes_too_long_is_cut_off(plane: Plane) -> None:
    """What has begun cannot be asked of a replica any more."""
    model = await plane.serve(Wanted(away=100, answer_timeout=PATIENCE))

    with pytest.raises(httpx.RemoteProtocolError):
        await plane.ask(model, headers=[("on-remote", "stall=5")])


@with_and_without(routes(without_retries))
async def test_the_remote_is_asked_as_often_as_it_is_wanted(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(away=100, retries=2, change=change))

    reply = await plane.ask(model, headers=[("on-remote", "status=503")])

    sides = sorted(record["servedBy"].partition("-")[0] for record in plane.backends.seen(reply.probe))
    assert (reply.status, reply.route) == (200, "local")
    assert sides == ["local", *["remote"] * (3 if held else 1)]


async def test_a_request_that_comes_back_in_the_end_is_the_clients_own(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=100, retries=1, headers_to_add=(("x-key", "of-the-remote"),)))

    reply = await plane.ask(
        model, "POST", "a?b=c", headers=[("on-remote", "status=503"), ("authorization", "of-the-client")]
    )

    seen = {record["servedBy"].partition("-")[0]: record for record in plane.backends.seen(reply.probe)}
    local, remote = (dict(seen[side]["headers"]) for side in ("local", "remote"))
    assert (seen["local"]["target"], local["authorization"]) == ("/a?b=c", "of-the-client")
    assert (seen["remote"]["target"], remote["x-key"]) == ("/ws/models/m/a?b=c", "of-the-remote")
    assert "x-key" not in local
    assert "authorization" not in remote


@pytest.mark.parametrize("wait", [None, timedelta(seconds=3)], ids=["by default", "with timeouts.connect"])
async def test_a_remote_that_answers_its_check_from_far_away_is_used(
    plane: Plane, network: Network, wait: timedelta | None
) -> None:
    """A replica has half a second for it."""
    seconds = 1.0 if wait is None else 2.5
    address = network.host(50)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(seconds if b"/healthz" in head else 0)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
        writer.close()

    check = HttpCheck(path="/healthz", interval=timedelta(seconds=1))
    async with await asyncio.start_server(answer, address, BACKEND_PORT):
        model = await plane.serve(Wanted(away=100, host=address, remote_check=check, connect_timeout=wait))
        await asyncio.sleep(2 * seconds + 2)

        replies = [await plane.ask(model) for _ in range(20)]
        await plane.withdraw(model)

    assert {(reply.status, reply.route) for reply in replies} == {(200, "remote")}


@contextlib.asynccontextmanager
async def silence(address: str) -> AsyncIterator[None]:
    """Have connections to an address neither accepted nor refused: a listener whose queue is full."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address, BACKEND_PORT))
        listener.listen(0)
        with contextlib.suppress(TimeoutError):
            while True:
                waiting = stack.enter_context(socket.socket())
                waiting.settimeout(0.2)
                waiting.connect((address, BACKEND_PORT))
        yield


@contextlib.asynccontextmanager
async def gone_silent(plane: Plane, address: str, change: Change) -> AsyncIterator[Model]:
    """Serve a model whose remote backend answered, and now takes no connection."""
    answer = web.Server(lambda _: asyncio.sleep(0, web.Response()))
    runner = web.ServerRunner(answer, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, address, BACKEND_PORT).start()
    check = HttpCheck(path="/healthz", interval=timedelta(seconds=1))
    wanted = Wanted(away=100, host=address, remote_check=check, connect_timeout=PATIENCE, change=change)
    model = await plane.serve(wanted)

    async def is_used() -> bool:
        return (await plane.ask(model)).route == "remote"

    try:
        await until(is_used, "the remote backend is used")
    finally:
        await runner.cleanup()
    async with silence(address):
        yield model
    await plane.withdraw(model)


def patient(cluster: Cluster) -> None:
    cluster.connect_timeout.FromSeconds(30)


@with_and_without(clusters(patient), "connect_timeout")
async def test_a_remote_that_takes_no_connection_fails_no_request(
    plane: Plane, network: Network, change: Change, held: bool
) -> None:
    async with gone_silent(plane, network.host(51), change) as model:
        report = await closed_loop(model.url, clients=20, requests=20, traffic=Traffic(timeout=3))

    assert (report.errors == {}) is held
    assert (report.summary.local == 20) is held


def without_checks(cluster: Cluster) -> None:
    if cluster.name.startswith("backend/"):
        cluster.ClearField("health_checks")


@with_and_without(clusters(without_checks), "health_checks")
async def test_a_remote_that_takes_no_connection_is_waited_for_no_longer_than_it_takes_to_know_it(
    plane: Plane, network: Network, change: Change, held: bool
) -> None:
    async with gone_silent(plane, network.host(52), change) as model:
        await asyncio.sleep(4)
        began = asyncio.get_running_loop().time()
        replies = [await plane.ask(model) for _ in range(20)]
        seconds = asyncio.get_running_loop().time() - began

    assert {(reply.status, reply.route) for reply in replies} == {(200, "local")}
    # Or each of them waits for a connection.
    assert (seconds < 20 * PATIENCE.total_seconds() / 2) is held
