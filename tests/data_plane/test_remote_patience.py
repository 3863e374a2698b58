"""`remoteBackend.timeouts` and `remoteBackend.retry`: how long and how often the remote backend is asked."""

from __future__ import annotations

import asyncio
import contextlib
from datetime import timedelta

import httpx
import pytest
from envoy.config.route.v3.route_components_pb2 import Route

from benchmarks.load import Traffic, closed_loop
from controller.api.route import HttpCheck
from tests.data_plane.support.loopback import BACKEND_PORT, Network
from tests.data_plane.support.model import Wanted
from tests.data_plane.support.mutation import Change, routes
from tests.data_plane.support.plane import Plane
from tests.data_plane.support.trap import with_and_without

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
