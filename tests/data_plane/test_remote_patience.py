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

from controller.api.contract.route import HttpCheck
from tests.support.connections import accepting
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import Change, clusters, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import Variants, serve_both
from tests.support.load import Sample, Traffic, closed_loop
from tests.support.network import BACKEND_PORT, Network
from tests.support.waiting import until
from xds_server.resources import names

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = timedelta(milliseconds=300)
RARELY, OFTEN = (HttpCheck(path="/healthz", interval=timedelta(seconds=seconds)) for seconds in (60, 1))


def without_timeout(route: Route) -> None:
    route.route.timeout.FromTimedelta(timedelta(0))


def without_retries(route: Route) -> None:
    if not route.response_headers_to_add:  # the one of the internal listener
        route.route.ClearField("retry_policy")


@pytest.mark.parametrize("away", [50, 100])
async def test_a_remote_that_never_answers_fails_no_request(plane: Plane, away: int) -> None:
    """All are answered while it says nothing; without, whoever is there waits as long as it does."""
    models = await serve_both(plane, Wanted(away=away, answer_timeout=PATIENCE), routes(without_timeout))
    silent = Traffic(headers=lambda _: {"on-remote": "held=silent"})

    loads = models.each(
        lambda model: asyncio.create_task(closed_loop(model.url, clients=100, requests=100, traffic=silent))
    )
    held = await loads.held
    assert not loads.removed.done()
    while not loads.removed.done():  # what only now comes there is held as well
        plane.backends.remote.release("silent")
        await asyncio.sleep(0.05)
    removed = await loads.removed

    assert (held.errors, held.summary.local) == ({}, 100)
    waited = removed.summary.remote
    assert waited == 100 if away == 100 else waited > 20
    assert (removed.errors, removed.summary.local) == ({}, 100 - waited)


async def test_an_answer_that_takes_too_long_is_cut_off(plane: Plane) -> None:
    """What has begun cannot be asked of a replica any more."""
    model = await plane.serve(Wanted(away=100, answer_timeout=PATIENCE))

    async def is_cut_off() -> bool:
        try:
            reply = await plane.ask(model, headers=[("on-remote", "stall=5")])
        except httpx.RemoteProtocolError:
            return True
        # If the machine had a pause, it had not begun.
        assert reply.route == "local"
        return False

    await until(is_cut_off, "it is cut off")


async def test_the_remote_is_asked_as_often_as_it_is_wanted(plane: Plane) -> None:
    models = await serve_both(plane, Wanted(away=100, retries=2), routes(without_retries))

    replies = await models.at_once(lambda model: plane.ask(model, headers=[("on-remote", "status=503")]))

    sides = replies.each(
        lambda reply: sorted(record["servedBy"].partition("-")[0] for record in plane.backends.seen(reply.probe))
    )
    for reply in (replies.held, replies.removed):
        assert (reply.status, reply.route) == (200, "local")
    assert sides.held == ["local", "remote", "remote", "remote"]
    assert sides.removed == ["local", "remote"]


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


@pytest.mark.parametrize("wait", [None, timedelta(seconds=5)], ids=["by default", "with timeouts.connect"])
async def test_a_remote_that_answers_its_check_from_far_away_is_used(
    plane: Plane, network: Network, wait: timedelta | None
) -> None:
    """A replica has half a second for it."""
    seconds = 1.0 if wait is None else 2.5
    address, checks = network.host(50), 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal checks
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while head := await reader.readuntil(b"\r\n\r\n"):
                await asyncio.sleep(seconds if b"/healthz" in head else 0)
                checks += b"/healthz" in head
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async def are_answered() -> bool:
        return checks >= 2

    check = HttpCheck(path="/healthz", interval=timedelta(seconds=1))
    async with accepting(answer, address, BACKEND_PORT):
        model = await plane.serve(Wanted(away=100, host=address, remote_check=check, connect_timeout=wait))
        await until(are_answered, "two checks are answered", within=30)
        # One may have come too late, if the machine had a pause.
        await plane.all_go(model, "remote")

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
async def gone_silent(plane: Plane, address: str, removed: Change, check: HttpCheck) -> AsyncIterator[Variants[Model]]:
    """Serve models whose remote backend answered, and now takes no connection."""
    answer = web.Server(lambda _: asyncio.sleep(0, web.Response()))
    runner = web.ServerRunner(answer, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, address, BACKEND_PORT).start()
    wanted = Wanted(away=100, host=address, remote_check=check, connect_timeout=PATIENCE)
    models = await serve_both(plane, wanted, removed)

    async def is_used(model: Model) -> bool:
        return (await plane.ask(model)).route == "remote"

    async def has_none_open(model: Model) -> bool:
        return await of_remote(plane, model, "upstream_cx_active") == 0

    try:
        await models.at_once(lambda model: until(lambda: is_used(model), "the remote backend is used"))
    finally:
        await runner.cleanup()
    async with silence(address):
        await models.at_once(lambda model: until(lambda: has_none_open(model), "no connection is left"))
        yield models
    await models.at_once(plane.withdraw)


async def of_remote(plane: Plane, model: Model, stat: str) -> int:
    (backend,) = {key.name for key in plane.keys(model) if names.is_backend(key.name)}
    return await plane.envoy.stat(f"cluster.{backend}.{stat}")


def patient(cluster: Cluster) -> None:
    cluster.connect_timeout.FromSeconds(30)


async def test_a_remote_that_takes_no_connection_fails_no_request(plane: Plane, network: Network) -> None:
    """By `connect_timeout`. When all of these have their answer, no client of the other has any.

    Nor has a check told Envoy by then, however long that takes.
    """
    answered: list[Sample] = []
    async with gone_silent(plane, network.host(51), clusters(patient), RARELY) as models:
        traffic = Traffic(on_sample=answered.append)
        waiting = asyncio.create_task(closed_loop(models.removed.url, clients=20, requests=20, traffic=traffic))
        report = await closed_loop(models.held.url, clients=20, requests=20)
        assert answered == []
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    assert (report.errors, report.summary.local) == ({}, 20)


def without_checks(cluster: Cluster) -> None:
    if cluster.name.startswith("backend/"):
        cluster.ClearField("health_checks")


async def test_a_remote_that_takes_no_connection_is_waited_for_no_longer_than_it_takes_to_know_it(
    plane: Plane, network: Network
) -> None:
    """By `health_checks`: or each request waits for a connection."""
    async with gone_silent(plane, network.host(52), clusters(without_checks), OFTEN) as models:

        async def is_known() -> bool:
            return await of_remote(plane, models.held, "health_check.healthy") == 0

        async def asked(model: Model) -> int:
            """How many requests waited for a connection."""
            before = await of_remote(plane, model, "upstream_cx_connect_timeout")
            for _ in range(20):
                reply = await plane.ask(model)
                assert (reply.status, reply.route) == (200, "local")
            return await of_remote(plane, model, "upstream_cx_connect_timeout") - before

        await until(is_known, "its checks fail", within=30)
        waits = await models.at_once(asked)

    assert waits.held == 0
    assert waits.removed >= 10
