"""A remote backend that fails: how long it is not believed, and what becomes of requests meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from controller.api.route import HttpCheck
from tests.support.data_plane.backends import reporting_unhealthy
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import Change, clusters
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import with_and_without
from tests.support.load import Traffic, open_loop
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

RARELY = HttpCheck(path="/healthz", interval=timedelta(seconds=60))
OFTEN = HttpCheck(path="/healthz", interval=timedelta(milliseconds=300))


def always_believing_the_remote(cluster: Cluster) -> None:
    if cluster.type == Cluster.STATIC and not cluster.name.endswith("/fallback"):
        cluster.ClearField("outlier_detection")


@pytest.mark.parametrize("limit", [None, 4], ids=["", "limited"])
@with_and_without(clusters(always_believing_the_remote))
async def test_replicas_that_failed_are_tried_while_the_remote_backend_fails(
    plane: Plane, change: Change, held: bool, limit: int | None
) -> None:
    """They are left alone, and well again by now: better than a remote backend that answers nobody."""
    model = await plane.serve(Wanted(limit=limit, change=change))
    plane.backends.remote.behave("status=503")
    try:
        for _ in range(30):
            await plane.ask(model, headers=[("on-local", "status=503")])
        replies = [await plane.ask(model) for _ in range(30)]
    finally:
        plane.backends.remote.behave("")

    failed = sum(reply.status == 503 for reply in replies)
    assert (failed <= 5) is held, f"{failed} failed"


@pytest.mark.parametrize("limit", [None, 4], ids=["", "limited"])
@with_and_without(clusters(always_believing_the_remote))
async def test_replicas_are_tried_when_neither_side_says_it_is_well(
    plane: Plane, change: Change, held: bool, limit: int | None
) -> None:
    """Though both would answer: their health checks alone fail."""
    model = await plane.serve(Wanted(check=OFTEN, remote_check=OFTEN, limit=limit, change=change))
    with reporting_unhealthy(plane.backends.all):
        await plane.healthy(model, 0)
        await until(lambda: fails(plane, model), "the remote backend gets nothing")
        replies = [await plane.ask(model) for _ in range(30)]

    assert {reply.route for reply in replies if reply.status == 200} == ({"local"} if held else set())


def ejecting_the_remote(cluster: Cluster) -> None:
    if cluster.type == Cluster.STATIC:
        cluster.outlier_detection.consecutive_gateway_failure.value = 3
        cluster.outlier_detection.enforcing_consecutive_gateway_failure.value = 100
        cluster.outlier_detection.max_ejection_percent.value = 100
        cluster.common_lb_config.healthy_panic_threshold.value = 0


@with_and_without(clusters(ejecting_the_remote))
async def test_a_few_bad_answers_fail_nobody_elses_requests(plane: Plane, change: Change, held: bool) -> None:
    model = await plane.serve(Wanted(replicas=(), change=change))
    for _ in range(4):
        await plane.ask(model, headers=[("on-remote", "status=503")])

    replies = [await plane.ask(model) for _ in range(20)]

    assert {reply.status for reply in replies} == {200} if held else 503 in {reply.status for reply in replies}


def of_the_remote(edit: Callable[[Cluster], object]) -> Change:
    return clusters(lambda cluster: edit(cluster) if cluster.name.endswith("/remote") else None)


def after_three(remote: Cluster) -> None:
    remote.outlier_detection.consecutive_gateway_failure.value = 3


@with_and_without(of_the_remote(after_three))
async def test_nor_do_they_while_the_replicas_are_dead_and_still_listed(
    plane: Plane, change: Change, held: bool
) -> None:
    model = await plane.serve(Wanted(check=OFTEN, change=change))
    with plane.backends.killed(*plane.backends.local):
        await plane.healthy(model, 0)
        # Twice each: there is nobody else to ask.
        for _ in range(2):
            await plane.ask(model, headers=[("on-remote", "status=503")])
        replies = [await plane.ask(model) for _ in range(20)]

    assert {reply.status for reply in replies} == ({200} if held else {200, 503})


def for_ten_seconds(remote: Cluster) -> None:
    remote.outlier_detection.base_ejection_time.FromSeconds(10)
    remote.outlier_detection.max_ejection_time.FromSeconds(10)


@with_and_without(of_the_remote(for_ten_seconds))
async def test_a_remote_backend_that_failed_five_times_in_a_row_is_soon_believed_again(
    plane: Plane, change: Change, held: bool
) -> None:
    model = await plane.serve(Wanted(check=OFTEN, change=change))
    with plane.backends.killed(*plane.backends.local):
        await plane.healthy(model, 0)
        for _ in range(5):
            await plane.ask(model, headers=[("on-remote", "status=503")])
        assert await plane.envoy.stat(f"cluster.{model.key}/remote.outlier_detection.ejections_enforced_total") == 1
        await asyncio.sleep(1)
        replies = [await plane.ask(model) for _ in range(20)]

    assert {reply.status for reply in replies} == ({200} if held else {200, 503})


def told_late(remote: Cluster) -> None:
    remote.common_lb_config.ClearField("update_merge_window")


@with_and_without(of_the_remote(told_late))
async def test_a_remote_backend_that_goes_on_failing_is_disbelieved_at_once_each_time(
    plane: Plane, change: Change, held: bool
) -> None:
    model = await plane.serve(Wanted(check=OFTEN, remote_check=OFTEN, change=change))
    with reporting_unhealthy(plane.backends.all):
        await plane.healthy(model, 0)
        await until(lambda: fails(plane, model), "the remote backend gets nothing")
        report = await open_loop(model.url, [number / 100 for number in range(400)], Traffic())

    # Measured: 45 with, 127 without.
    failed = report.errors["status 503"]
    assert (failed < 80) is held, f"{failed} failed"


async def fails(plane: Plane, model: Model) -> bool:
    return (await plane.ask(model)).status == 503
