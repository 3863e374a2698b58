"""Trap 8: answers that take long, bodies that are large, answers that break off."""

from __future__ import annotations

import asyncio
import hashlib

import httpx
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.config.route.v3.route_components_pb2 import Route
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from tests.support.data_plane.model import Wanted
from tests.support.data_plane.mutation import Change, limits, managers, nothing, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import with_and_without

pytestmark = pytest.mark.asyncio(loop_scope="module")


def default_timeout(route: Route) -> None:
    route.route.ClearField("timeout")


def default_buffer(resource: Listener | Cluster) -> None:
    resource.ClearField("per_connection_buffer_limit_bytes")


def default_close(manager: HttpConnectionManager) -> None:
    manager.ClearField("delayed_close_timeout")


@pytest.mark.timeout(60)
async def test_an_answer_may_take_longer_than_the_default_timeout(plane: Plane) -> None:
    """Both sides, with the setting and without, at the same time: each takes more than 15 s."""

    async def answered_by(away: int, change: Change) -> tuple[int, str]:
        model = await plane.serve(Wanted(away=away, change=change))
        reply = await plane.ask(model, headers=[("on-local", "delay=16"), ("on-remote", "delay=16")])
        return reply.status, reply.route

    local, remote, *without = await asyncio.gather(
        *(answered_by(away, change) for change in (nothing, routes(default_timeout)) for away in (0, 100))
    )

    assert (local, remote) == ((200, "local"), (200, "remote"))
    assert {status for status, _ in without} == {504}


@pytest.mark.parametrize(("side", "other", "away"), [("local", "remote", 0), ("remote", "local", 100)])
@with_and_without(limits(default_buffer))
async def test_a_large_body_can_be_sent_again(
    plane: Plane, side: str, other: str, away: int, *, change: Change, held: bool
) -> None:
    model = await plane.serve(Wanted(away=away, change=change))
    body = bytes(range(251)) * (3 * 2**20 // 251)

    reply = await plane.ask(model, "POST", headers=[(f"on-{side}", "status=503")], content=body)

    if held:
        assert (reply.status, reply.route) == (200, other)
        digests = [record["sha256"] for record in plane.backends.seen(reply.probe)]
        assert digests == [hashlib.sha256(body).hexdigest()] * 2
    else:
        assert (reply.status, reply.route) == (503, side)


@pytest.mark.parametrize("away", [0, 100])
@with_and_without(managers(default_close))
async def test_an_answer_that_breaks_off_ends_at_once(plane: Plane, away: int, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(away=away, change=change))
    start = asyncio.get_running_loop().time()

    with pytest.raises(httpx.RemoteProtocolError):
        await plane.ask(model, headers=[("on-local", "reset=after"), ("on-remote", "reset=after")])

    seconds = asyncio.get_running_loop().time() - start
    assert seconds < 0.8 if held else seconds >= 0.9


async def test_a_large_answer_arrives_whole(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=50))

    for _ in range(4):
        reply = await plane.ask(model, headers=[("on-local", "size=20000000"), ("on-remote", "size=20000000")])

        assert (reply.status, len(reply.body)) == (200, 20_000_000)
