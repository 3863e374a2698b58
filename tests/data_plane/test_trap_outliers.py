"""Trap 4: replicas that fail are left alone, however few there are, and one that fails is not half of a failover."""

from __future__ import annotations

from datetime import timedelta

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from controller.api.route import HttpCheck
from tests.support.data_plane.backends import reporting_unhealthy
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.mutation import Change, assignments, clusters
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import with_and_without
from tests.support.load import Traffic, closed_loop, open_loop

pytestmark = pytest.mark.asyncio(loop_scope="module")

RARELY = HttpCheck(path="/healthz", interval=timedelta(seconds=60))
OFTEN = HttpCheck(path="/healthz", interval=timedelta(milliseconds=300))


def cleared(*fields: str):
    def clear(cluster: Cluster) -> None:
        for field in fields:
            cluster.outlier_detection.ClearField(field)

    return clusters(clear)


@with_and_without(cleared("max_ejection_percent"))
async def test_all_of_a_few_replicas_can_be_ejected(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(check=RARELY, change=change))
    before = sum(one.count() for one in plane.backends.local)

    report = await closed_loop(
        model.url, clients=1, requests=100, traffic=Traffic(headers=lambda _: {"on-local": "status=503"})
    )

    tried = sum(one.count() for one in plane.backends.local) - before
    assert report.errors == {}
    assert report.summary.remote == 100
    # Three failures of each of three, and some more should an ejection end meanwhile.
    assert tried < 40 if held else tried == 100


@with_and_without(clusters(lambda cluster: cluster.common_lb_config.ClearField("update_merge_window")))
async def test_an_ejection_counts_at_once(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(check=RARELY, change=change))
    before = sum(one.count() for one in plane.backends.local)

    await closed_loop(model.url, clients=1, requests=100, traffic=Traffic(headers=lambda _: {"on-local": "status=503"}))

    tried = sum(one.count() for one in plane.backends.local) - before
    assert tried < 40 if held else tried > 40


def whoever_cannot_be_reached(cluster: Cluster) -> None:
    if cluster.HasField("outlier_detection"):
        cluster.outlier_detection.enforcing_consecutive_local_origin_failure.value = 0


@with_and_without(clusters(whoever_cannot_be_reached))
async def test_a_dead_replica_is_tried_five_times(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(replicas=plane.backends.replicas[:1], check=RARELY, change=change))

    with plane.backends.killed(plane.backends.local[0]):
        replies = [await plane.ask(model) for _ in range(8)]
        refused = await plane.envoy.stat(f"cluster.{model.local_cluster}.upstream_cx_connect_fail")

    assert {(reply.status, reply.route) for reply in replies} == {(200, "remote")}
    assert refused == (5 if held else 8)


@with_and_without(cleared("successful_active_health_check_uneject_host"))
async def test_a_replica_that_fails_but_looks_well_is_left_alone_longer_each_time(
    plane: Plane, change: Change, held: bool
) -> None:
    # For a second, then for two and three: three or four times.
    assert (await ejections_of_a_bad_one(plane, change, seconds=8) <= 5) is held


def for_two_seconds_at_most(cluster: Cluster) -> None:
    if cluster.HasField("outlier_detection"):
        cluster.outlier_detection.max_ejection_time.FromSeconds(2)


@with_and_without(clusters(for_two_seconds_at_most), "max_ejection_time")
async def test_what_goes_on_failing_is_tried_seldom(plane: Plane, change: Change, held: bool) -> None:
    # One, two, three, four and five seconds; or one, and then two each time.
    assert (await ejections_of_a_bad_one(plane, change, seconds=16) <= 5) is held


async def ejections_of_a_bad_one(plane: Plane, change: Change, seconds: int) -> int:
    """Ask replicas of which one fails requests but not its check; return how often it was ejected."""
    model = await plane.serve(Wanted(check=HttpCheck(path="/healthz", interval=timedelta(seconds=1)), change=change))
    await plane.healthy(model, 3)
    bad = plane.backends.local[0]
    bad.behave("status=503")
    try:
        report = await open_loop(model.url, [number / 50 for number in range(50 * seconds)], Traffic())
    finally:
        bad.behave("")
    assert report.errors == {}
    return await plane.envoy.stat(f"cluster.{model.local_cluster}.outlier_detection.ejections_enforced_total")


async def test_unhealthy_replicas_get_nothing_while_another_is_healthy(plane: Plane) -> None:
    model = await plane.serve(Wanted(remote=False, check=OFTEN))
    unhealthy = plane.backends.local[:2]
    with reporting_unhealthy(unhealthy):
        await plane.healthy(model, 1)
        before = sum(one.count() for one in unhealthy)
        replies = [await plane.ask(model) for _ in range(30)]
        got = sum(one.count() for one in unhealthy) - before

    assert {reply.status for reply in replies} == {200}
    assert got == 0


def never_panic(cluster: Cluster) -> None:
    cluster.common_lb_config.healthy_panic_threshold.value = 0


@with_and_without(clusters(never_panic))
async def test_when_nothing_is_believed_to_work_everything_is_tried(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(remote=False, check=OFTEN, change=change))
    with reporting_unhealthy(plane.backends.local):
        await plane.healthy(model, 0)
        replies = [await plane.ask(model) for _ in range(20)]

    assert {reply.status for reply in replies} == ({200} if held else {503})


@with_and_without(assignments(lambda assignment: assignment.policy.ClearField("overprovisioning_factor")))
async def test_one_bad_replica_of_three_sends_nothing_away(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(check=OFTEN, change=change))
    bad = plane.backends.local[0]
    with plane.backends.killed(bad):
        await plane.healthy(model, 2)
        report = await closed_loop(model.url, clients=16, requests=1_000)

    assert report.errors == {}
    assert report.summary.remote == 0 if held else report.summary.remote > 20
