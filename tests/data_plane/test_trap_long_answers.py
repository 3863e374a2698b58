"""Trap 8: answers that take long, bodies that are large, answers that break off."""

from __future__ import annotations

import asyncio
import hashlib

import httpx
import pytest
from envoy.config.route.v3.route_components_pb2 import Route, VirtualHost
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import managers, routes, virtual_hosts
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import serve_both
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


def default_timeout(route: Route) -> None:
    route.route.ClearField("timeout")


def default_buffer(host: VirtualHost) -> None:
    host.ClearField("request_body_buffer_limit")


def default_close(manager: HttpConnectionManager) -> None:
    manager.ClearField("delayed_close_timeout")


async def test_an_answer_may_take_longer_than_the_default_timeout(plane: Plane) -> None:
    """Both sides at the same time: the answers come when those without the setting have been given up, after 15 s."""
    local = await serve_both(plane, Wanted(), routes(default_timeout))
    remote = await serve_both(plane, Wanted(away=100), routes(default_timeout))
    headers = [("on-local", "held=long"), ("on-remote", "held=long")]
    asked = [
        both.each(lambda model: asyncio.create_task(plane.ask(model, headers=headers))) for both in (local, remote)
    ]

    without = await asyncio.gather(*(one.removed for one in asked))
    assert not any(one.held.done() for one in asked)
    for server in plane.backends.all:
        server.release("long")
    replies = await asyncio.gather(*(one.held for one in asked))

    assert [(reply.status, reply.route) for reply in replies] == [(200, "local"), (200, "remote")]
    assert [reply.status for reply in without] == [504, 504]


@pytest.mark.parametrize(("side", "other", "away"), [("local", "remote", 0), ("remote", "local", 100)])
async def test_a_large_body_can_be_sent_again(plane: Plane, side: str, other: str, away: int) -> None:
    models = await serve_both(plane, Wanted(away=away), virtual_hosts(default_buffer))
    body = bytes(range(251)) * (3 * 2**20 // 251)

    replies = await models.at_once(
        lambda model: plane.ask(model, "POST", headers=[(f"on-{side}", "status=503")], content=body)
    )

    assert (replies.held.status, replies.held.route) == (200, other)
    digests = [record["sha256"] for record in plane.backends.seen(replies.held.probe)]
    assert digests == [hashlib.sha256(body).hexdigest()] * 2
    assert (replies.removed.status, replies.removed.route) == (503, side)


@pytest.mark.parametrize("away", [0, 100])
async def test_an_answer_that_breaks_off_ends_at_once(plane: Plane, away: int) -> None:
    models = await serve_both(plane, Wanted(away=away), managers(default_close))

    async def seconds_to_the_end(model: Model) -> float:
        start = asyncio.get_running_loop().time()
        with pytest.raises(httpx.RemoteProtocolError):
            await plane.ask(model, headers=[("on-local", "reset=after"), ("on-remote", "reset=after")])
        return asyncio.get_running_loop().time() - start

    async def ends_sooner() -> bool:
        seconds = await models.at_once(seconds_to_the_end)
        # By default Envoy keeps the connection for another second.
        assert seconds.removed >= 0.9
        # If the machine has a pause, both end with it.
        return seconds.held < seconds.removed / 2

    await until(ends_sooner, "it ends sooner than by default")


async def test_a_large_answer_arrives_whole(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=50))

    for _ in range(4):
        reply = await plane.ask(model, headers=[("on-local", "size=20000000"), ("on-remote", "size=20000000")])

        assert (reply.status, len(reply.body)) == (200, 20_000_000)
