"""A remote backend that fails: how long it is not believed, and what becomes of requests meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from controller.api.contract.route import HttpCheck, ReplicaCheck
from tests.support.data_plane.backends import reporting_unhealthy
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import Change, clusters
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import Variants, serve_both
from tests.support.load import Sample, Traffic, closed_loop
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

RARELY = HttpCheck(path="/healthz", interval=timedelta(seconds=60))
OFTEN = ReplicaCheck(path="/healthz", interval=timedelta(milliseconds=300))
REMOTE_OFTEN = HttpCheck(path="/healthz", interval=timedelta(milliseconds=300))


def always_believing_the_remote(cluster: Cluster) -> None:
    if cluster.type == Cluster.STATIC and not cluster.name.endswith("/fallback"):
        cluster.ClearField("outlier_detection")


def for_a_minute(cluster: Cluster) -> None:
    if cluster.HasField("outlier_detection"):
        cluster.outlier_detection.base_ejection_time.FromSeconds(60)
        cluster.outlier_detection.max_ejection_time.FromSeconds(60)


@pytest.mark.parametrize("limit", [None, 4], ids=["", "limited"])
async def test_replicas_that_failed_are_tried_while_the_remote_backend_fails(plane: Plane, limit: int | None) -> None:
    """They are left alone, and well again by now: better than a remote backend that answers nobody."""
    # However long the requests take: what matters is that neither side is believed.
    wanted = Wanted(limit=limit, change=clusters(for_a_minute))
    models = await serve_both(plane, wanted, clusters(always_believing_the_remote))

    async def failed(model: Model) -> int:
        failing = Traffic(headers=lambda _: {"on-local": "status=503"})
        await closed_loop(model.url, clients=1, requests=30, traffic=failing)
        report = await closed_loop(model.url, clients=1, requests=30)
        return report.errors.get("status 503", 0)

    plane.backends.remote.behave("status=503")
    try:
        failures = await models.at_once(failed)
    finally:
        plane.backends.remote.behave("")

    assert failures.held < failures.removed / 2


@pytest.mark.parametrize("limit", [None, 4], ids=["", "limited"])
async def test_replicas_are_tried_when_neither_side_says_it_is_well(plane: Plane, limit: int | None) -> None:
    """Though both would answer: their health checks alone fail."""
    wanted = Wanted(check=OFTEN, remote_check=REMOTE_OFTEN, limit=limit)
    models = await serve_both(plane, wanted, clusters(always_believing_the_remote))

    async def answering(model: Model) -> set[str]:
        await plane.healthy(model, 0)
        await plane.remote_found_ill(model)
        await until(lambda: fails(plane, model), "the remote backend gets nothing")
        replies = [await plane.ask(model) for _ in range(30)]
        return {reply.route for reply in replies if reply.status == 200}

    with reporting_unhealthy(plane.backends.all):
        sides = await models.at_once(answering)

    assert (sides.held, sides.removed) == ({"local"}, set())


def ejecting_the_remote(cluster: Cluster) -> None:
    if cluster.type == Cluster.STATIC:
        cluster.outlier_detection.consecutive_gateway_failure.value = 3
        cluster.outlier_detection.enforcing_consecutive_gateway_failure.value = 100
        cluster.outlier_detection.max_ejection_percent.value = 100
        cluster.common_lb_config.healthy_panic_threshold.value = 0
        for_a_minute(cluster)  # or it may be over before anybody else asks


async def test_a_few_bad_answers_fail_nobody_elses_requests(plane: Plane) -> None:
    models = await serve_both(plane, Wanted(replicas=()), clusters(ejecting_the_remote))

    async def asked(model: Model) -> set[int]:
        for _ in range(4):
            await plane.ask(model, headers=[("on-remote", "status=503")])
        return {(await plane.ask(model)).status for _ in range(20)}

    statuses = await models.at_once(asked)

    assert statuses.held == {200}
    assert 503 in statuses.removed


def of_the_remote(edit: Callable[[Cluster], object]) -> Change:
    return clusters(lambda cluster: edit(cluster) if cluster.name.endswith("/remote") else None)


def after_three(remote: Cluster) -> None:
    remote.outlier_detection.consecutive_gateway_failure.value = 3
    for_a_minute(remote)


async def test_nor_do_they_while_the_replicas_are_dead_and_still_listed(plane: Plane) -> None:
    models = await serve_both(plane, Wanted(check=OFTEN), of_the_remote(after_three))

    async def asked(model: Model) -> set[int]:
        await plane.healthy(model, 0)
        # Twice each: there is nobody else to ask.
        for _ in range(2):
            await plane.ask(model, headers=[("on-remote", "status=503")])
        # A quarter of them fail where it is not believed.
        return {(await plane.ask(model)).status for _ in range(100)}

    with plane.backends.killed(*plane.backends.local):
        statuses = await models.at_once(asked)

    assert (statuses.held, statuses.removed) == ({200}, {200, 503})


def for_longer(remote: Cluster) -> None:
    remote.outlier_detection.base_ejection_time.FromSeconds(5)
    remote.outlier_detection.max_ejection_time.FromSeconds(5)


async def test_a_remote_backend_that_failed_five_times_in_a_row_is_soon_believed_again(plane: Plane) -> None:
    """While the same failures are held against the other still."""
    models = await serve_both(plane, Wanted(check=OFTEN), of_the_remote(for_longer))

    async def ejections(which: str) -> Variants[int]:
        """Of both at the same moment."""
        names = models.each(lambda model: f"cluster.{model.key}/remote.outlier_detection.ejections_{which}")
        stats = await plane.envoy.stats(
            f"^cluster\\.({models.held.key}|{models.removed.key})/remote\\..*ejections_{which}$"
        )
        return names.each(stats.__getitem__)

    async def disbelieved(model: Model) -> None:
        """Fail five times, or until it is ejected: each request may be tried twice."""
        name = f"cluster.{model.key}/remote.outlier_detection.ejections_enforced_total"
        before = await plane.envoy.stat(name)
        for _ in range(5):
            await plane.ask(model, headers=[("on-remote", "status=503")])
            if await plane.envoy.stat(name) > before:
                break

    async def asked(model: Model) -> set[int]:
        # A quarter of them fail where it is not believed.
        return {(await plane.ask(model)).status for _ in range(60)}

    of_removed: set[int] = set()

    async def is_sooner() -> bool:
        active = await ejections("active")
        if active == Variants(0, 0):  # at first, and if the machine had a pause
            before = await ejections("enforced_total")
            await models.at_once(disbelieved)
            assert await ejections("enforced_total") == before.each(lambda count: count + 1)
            of_removed.update(await asked(models.removed))
        return active == Variants(0, 1)

    with plane.backends.killed(*plane.backends.local):
        await models.at_once(lambda model: plane.healthy(model, 0))
        await until(is_sooner, "the one remote backend is believed again, the other is not", within=60)
        of_held = await asked(models.held)

    assert (of_held, of_removed) == ({200}, {200, 503})


def told_late(remote: Cluster) -> None:
    remote.common_lb_config.ClearField("update_merge_window")


async def test_a_remote_backend_that_goes_on_failing_is_disbelieved_at_once_each_time(plane: Plane) -> None:
    """Six times, and until the other was once told so late that many requests in a row failed meanwhile."""
    models = await serve_both(plane, Wanted(check=OFTEN, remote_check=REMOTE_OFTEN), of_the_remote(told_late))
    runs, stop = Variants(Run(), Run()), asyncio.Event()

    async def load(model: Model, run: Run) -> None:
        await plane.healthy(model, 0)
        await until(lambda: fails(plane, model), "the remote backend gets nothing")
        traffic = Traffic(on_sample=run.add)
        await closed_loop(model.url, clients=1, requests=100_000, traffic=traffic, stop=stop, every=0.005)

    async def is_told() -> bool:
        name = f"cluster.{models.held.key}/remote.outlier_detection.ejections_enforced_total"
        return runs.removed.longest > 3 * max(runs.held.longest, 5) and await plane.envoy.stat(name) >= 6

    with reporting_unhealthy(plane.backends.all):
        loads = asyncio.gather(load(models.held, runs.held), load(models.removed, runs.removed))
        try:
            await until(is_told, "both have their ejections", within=60)
        finally:
            stop.set()
            await loads

    # Measured: 4 with, 160 without, which is about as many as are sent in a second.
    assert 3 * runs.held.longest < runs.removed.longest


@dataclass
class Run:
    """How many requests failed one after the other, at most."""

    longest: int = 0
    now: int = 0

    def add(self, sample: Sample) -> None:
        self.now = self.now + 1 if sample.status == 503 else 0
        self.longest = max(self.longest, self.now)


async def fails(plane: Plane, model: Model) -> bool:
    return (await plane.ask(model)).status == 503
