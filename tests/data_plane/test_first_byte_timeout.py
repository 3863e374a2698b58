"""`behavior.firstByteTimeout`: a replica that does not begin to answer is joined by the remote backend, not given up.

Nothing else helps a request that waits: neither health checks nor ejections end it.
"""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route

from tests.support.data_plane.model import Wanted
from tests.support.data_plane.mutation import Change, clusters, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import with_and_without
from tests.support.load import Traffic, closed_loop, open_loop

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = timedelta(milliseconds=200)
NEVER = "delay=30"


def without_patience(route: Route) -> None:
    route.route.retry_policy.ClearField("per_try_timeout")


def without_hedging(route: Route) -> None:
    route.route.ClearField("hedge_policy")


@with_and_without(routes(without_patience))
@pytest.mark.parametrize("away", [0, 50])
async def test_replicas_that_never_answer_fail_no_request(plane: Plane, away: int, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(away=away, first_byte_timeout=PATIENCE, change=change))

    report = await closed_loop(
        model.url, clients=50, requests=200, traffic=Traffic(headers=lambda _: {"on-local": NEVER}, timeout=2)
    )

    assert set(report.errors) <= ({"timeout"} if not held else set())
    assert (report.summary.failed == 0) is held
    assert (report.summary.remote == 200) is held


@with_and_without(routes(without_hedging))
async def test_a_slow_answer_of_a_replica_arrives_when_the_remote_has_none(
    plane: Plane, change: Change, held: bool
) -> None:
    model = await plane.serve(Wanted(first_byte_timeout=PATIENCE, change=change))

    replies = [
        await plane.ask(model, headers=[("on-local", "delay=0.6"), ("on-remote", "status=503")]) for _ in range(5)
    ]

    assert [(reply.status, reply.route) == (200, "local") for reply in replies] == [held] * 5


async def test_a_slow_answer_of_a_replica_is_the_clients_if_it_comes_first(plane: Plane) -> None:
    model = await plane.serve(Wanted(first_byte_timeout=PATIENCE))

    replies = [await plane.ask(model, headers=[("on-local", "delay=0.4"), ("on-remote", "delay=5")]) for _ in range(5)]

    assert {(reply.status, reply.route) for reply in replies} == {(200, "local")}
    assert [len(plane.backends.seen(reply.probe)) for reply in replies] == [2] * 5


async def test_a_request_that_is_answered_in_time_does_not_leave(plane: Plane) -> None:
    model = await plane.serve(Wanted(first_byte_timeout=timedelta(seconds=2)))
    before = plane.backends.remote.count()

    report = await closed_loop(model.url, clients=20, requests=1_000)

    assert (report.errors, report.summary.local) == ({}, 1_000)
    assert plane.backends.remote.count() == before


async def test_a_request_is_asked_twice_at_most(plane: Plane) -> None:
    model = await plane.serve(Wanted(first_byte_timeout=PATIENCE))

    reply = await plane.ask(model, headers=[("on-local", "delay=1"), ("on-remote", "delay=1")])

    assert reply.status == 200
    assert len(plane.backends.seen(reply.probe)) == 2


async def test_the_body_is_sent_whole_to_both(plane: Plane) -> None:
    model = await plane.serve(Wanted(first_byte_timeout=PATIENCE))
    body = bytes(range(256)) * 8_000

    reply = await plane.ask(model, method="POST", headers=[("on-local", NEVER)], content=body)

    seen = plane.backends.seen(reply.probe)
    assert (reply.status, reply.route) == (200, "remote")
    assert {record["length"] for record in seen} == {len(body)}
    assert len({record["sha256"] for record in seen}) == 1


async def test_a_model_that_may_not_leave_waits_for_its_replica(plane: Plane) -> None:
    model = await plane.serve(Wanted(remote=False, first_byte_timeout=PATIENCE))
    before = plane.backends.remote.count()

    reply = await plane.ask(model, headers=[("on-local", "delay=0.6")])

    assert (reply.status, reply.route, len(plane.backends.seen(reply.probe))) == (200, "local", 1)
    assert plane.backends.remote.count() == before


def counting_every_late_answer(cluster: Cluster) -> None:
    cluster.outlier_detection.consecutive_local_origin_failure.value = 2


@with_and_without(clusters(counting_every_late_answer))
async def test_replicas_that_are_slow_now_and_then_keep_their_requests(
    plane: Plane, change: Change, held: bool
) -> None:
    """A late answer counts against its replica like a connection that fails; a few of them make no outlier."""
    model = await plane.serve(Wanted(first_byte_timeout=PATIENCE, change=change))

    # One of five, by chance: replicas are asked in turn, and what comes in turn as well would not meet one twice.
    by_chance = random.Random(5)
    slow = {number for number in range(1_000) if by_chance.random() < 0.2}

    def some_are_slow(number: int) -> dict[str, str]:
        return {"on-local": "delay=0.5", "on-remote": "delay=2"} if number in slow else {}

    report = await open_loop(model.url, [number / 200 for number in range(1_000)], Traffic(headers=some_are_slow))

    assert report.errors == {}
    assert (report.summary.remote <= 20) is held
