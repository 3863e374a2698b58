"""`behavior.firstByteTimeout`: a replica that does not begin to answer is joined by the remote backend, not given up.

Nothing else helps a request that waits: neither health checks nor ejections end it.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route

from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import clusters, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import Variants, serve_both
from tests.support.load import Traffic, closed_loop
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATIENCE = timedelta(milliseconds=200)
NEVER = "delay=30"


def without_patience(route: Route) -> None:
    route.route.retry_policy.ClearField("per_try_timeout")


def without_hedging(route: Route) -> None:
    route.route.ClearField("hedge_policy")


@pytest.mark.parametrize("away", [0, 50])
async def test_replicas_that_never_answer_fail_no_request(plane: Plane, away: int) -> None:
    """All are answered while the replicas say nothing; without, whoever is at a replica waits as long as they do."""
    models = await serve_both(plane, Wanted(away=away, first_byte_timeout=PATIENCE), routes(without_patience))
    silent = Traffic(headers=lambda _: {"on-local": "held=silent"})

    loads = models.each(
        lambda model: asyncio.create_task(closed_loop(model.url, clients=100, requests=100, traffic=silent))
    )
    held = await loads.held
    assert not loads.removed.done()
    while not loads.removed.done():  # what only now comes to a replica is held there as well
        for one in plane.backends.local:
            one.release("silent")
        await asyncio.sleep(0.05)
    removed = await loads.removed

    assert (held.errors, held.summary.remote) == ({}, 100)
    waited = removed.summary.local
    assert waited == 100 if away == 0 else waited > 20
    assert (removed.errors, removed.summary.remote) == ({}, 100 - waited)


async def test_a_slow_answer_of_a_replica_arrives_when_the_remote_has_none(plane: Plane) -> None:
    models = await serve_both(plane, Wanted(first_byte_timeout=PATIENCE), routes(without_hedging))
    headers = [("on-local", "held=late"), ("on-remote", "status=503")]

    asked = models.each(lambda model: asyncio.gather(*(plane.ask(model, headers=headers) for _ in range(5))))
    removed = await asked.removed
    await until(lambda: plane.backends.remote.count(models.held) == 5, "the remote backend was asked as well")
    await asyncio.sleep(2 * PATIENCE.total_seconds())  # and has answered by then
    assert not asked.held.done()
    for one in plane.backends.local:
        one.release("late")
    replies = Variants(await asked.held, removed)

    answers = replies.each(lambda some: [(reply.status, reply.route) == (200, "local") for reply in some])
    assert (answers.held, answers.removed) == ([True] * 5, [False] * 5)


async def test_a_slow_answer_of_a_replica_is_the_clients_if_it_comes_first(plane: Plane) -> None:
    model = await plane.serve(Wanted(first_byte_timeout=PATIENCE))
    headers = [("on-local", "held=first"), ("on-remote", "held=second")]
    asking = asyncio.gather(*(plane.ask(model, headers=headers) for _ in range(5)))

    async def are_at_both() -> bool:
        return (plane.backends.count_local(model), plane.backends.remote.count(model)) == (5, 5)

    await until(are_at_both, "both sides are asked")
    for one in plane.backends.local:
        one.release("first")
    replies = await asking
    plane.backends.remote.release("second")

    assert {(reply.status, reply.route) for reply in replies} == {(200, "local")}
    assert [len(plane.backends.seen(reply.probe)) for reply in replies] == [2] * 5


async def test_a_request_that_is_answered_in_time_does_not_leave(plane: Plane) -> None:
    model = await plane.serve(Wanted(first_byte_timeout=timedelta(seconds=20)))

    report = await closed_loop(model.url, clients=20, requests=500)

    assert (report.errors, report.summary.local) == ({}, 500)
    assert plane.backends.remote.count(model) == 0


async def test_a_request_is_asked_twice_at_most(plane: Plane) -> None:
    model = await plane.serve(Wanted(first_byte_timeout=PATIENCE))

    asking = asyncio.create_task(plane.ask(model, headers=[("on-local", "held=both"), ("on-remote", "held=both")]))
    await until(
        lambda: plane.backends.count_local(model) == plane.backends.remote.count(model) == 1, "both sides are asked"
    )
    await asyncio.sleep(4 * PATIENCE.total_seconds())  # nor is anybody after as long again
    for one in plane.backends.all:
        one.release("both")
    reply = await asking

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


LATE_AT_ONCE = 4
"""One fewer than make an outlier."""


def counting_every_late_answer(cluster: Cluster) -> None:
    cluster.outlier_detection.consecutive_local_origin_failure.value = 2


async def test_replicas_that_are_slow_now_and_then_keep_their_requests(plane: Plane) -> None:
    """A late answer counts against its replica like a connection that fails; a few of them make no outlier.

    Each request that reaches the replica is a success to begin with: so no more are late in a row than are there at
    once, whoever else has the processors.
    """
    wanted = Wanted(first_byte_timeout=PATIENCE, replicas=plane.backends.replicas[:1])
    models = await serve_both(plane, wanted, clusters(counting_every_late_answer))
    replica, rounds = plane.backends.local[0], 0

    async def ejections_of(model: Model) -> int:
        return await plane.envoy.stat(f"cluster.{model.local_cluster}.outlier_detection.ejections_enforced_total")

    async def some_are_slow(model: Model) -> None:
        slow = await asyncio.gather(
            *(plane.ask(model, headers=[("on-local", "held=slow")]) for _ in range(LATE_AT_ONCE))
        )
        assert [(reply.status, reply.route) for reply in slow] == [(200, "remote")] * LATE_AT_ONCE
        assert (await plane.ask(model)).status == 200

    async def control_was_left_alone() -> bool:
        nonlocal rounds
        rounds += 1
        await models.at_once(some_are_slow)
        replica.release("slow")
        return await ejections_of(models.removed) >= 2

    await until(control_was_left_alone, "the replica is an outlier twice where every late answer counts", within=60)

    assert await ejections_of(models.held) == 0
    reached = models.each(replica.count)
    assert reached.held == rounds * (LATE_AT_ONCE + 1) > reached.removed
