"""Trap 4: replicas that fail are left alone, however few there are, and one that fails is not half of a failover."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster

from controller.api.contract.route import ReplicaCheck
from tests.support.data_plane.backends import reporting_unhealthy
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import Change, assignments, clusters
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.trap import serve_both
from tests.support.load import Report, Traffic, closed_loop
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

RARELY = ReplicaCheck(path="/healthz", interval=timedelta(seconds=60))
OFTEN = ReplicaCheck(path="/healthz", interval=timedelta(milliseconds=300))


def cleared(*fields: str) -> Change:
    def clear(cluster: Cluster) -> None:
        for field in fields:
            cluster.outlier_detection.ClearField(field)

    return clusters(clear)


FAILS = Traffic(headers=lambda _: {"on-local": "status=503"})
# What a replica has failed when it is ejected; an ejection may end meanwhile, and it takes as many again.
FAILURES = 3


def tried_at_most(ejections: int) -> int:
    """What has been tried with so many ejections and two replicas on their way to one, and as much again.

    A worker hears of an ejection a moment after it.
    """
    return 2 * FAILURES * (ejections + 3 - 1)


async def ejections_of(plane: Plane, model: Model) -> int:
    return await plane.envoy.stat(f"cluster.{model.local_cluster}.outlier_detection.ejections_enforced_total")


async def test_all_of_a_few_replicas_can_be_ejected(plane: Plane) -> None:
    models = await serve_both(plane, Wanted(check=RARELY), cleared("max_ejection_percent"))

    reports = await models.at_once(lambda model: closed_loop(model.url, clients=1, requests=100, traffic=FAILS))

    tried = models.each(plane.backends.count_local)
    for report in (reports.held, reports.removed):
        assert report.errors == {}
        assert report.summary.remote == 100
    assert tried.held <= tried_at_most(await ejections_of(plane, models.held))
    assert 2 * tried.held < tried.removed
    assert tried.removed == 100


async def test_an_ejection_counts_at_once(plane: Plane) -> None:
    without = clusters(lambda cluster: cluster.common_lb_config.ClearField("update_merge_window"))

    async def is_told_late() -> bool:
        models = await serve_both(plane, Wanted(check=RARELY), without)
        await models.at_once(lambda model: closed_loop(model.url, clients=1, requests=100, traffic=FAILS))
        tried = models.each(plane.backends.count_local)
        allowed = await models.at_once(lambda model: ejections_of(plane, model))
        assert tried.held <= tried_at_most(allowed.held)
        # If the machine is slow, few are tried in the second that passes until the other is told.
        return tried.removed > tried_at_most(allowed.removed) and 2 * tried.held < tried.removed

    await until(is_told_late, "without, an ejection counts later", within=60)


def whoever_cannot_be_reached(cluster: Cluster) -> None:
    if cluster.HasField("outlier_detection"):
        cluster.outlier_detection.enforcing_consecutive_local_origin_failure.value = 0


async def test_a_dead_replica_is_tried_five_times(plane: Plane) -> None:
    wanted = Wanted(replicas=plane.backends.replicas[:1], check=RARELY)
    models = await serve_both(plane, wanted, clusters(whoever_cannot_be_reached))

    async def refusals(model: Model) -> int:
        return await plane.envoy.stat(f"cluster.{model.local_cluster}.upstream_cx_connect_fail")

    async def asked(model: Model) -> tuple[Sequence[int], bool]:
        """Ask eight times; return how often the replica refused until each ejection, and in the end.

        And whether an ejection has ended by then.
        """
        refused = []
        for _ in range(8):
            reply = await plane.ask(model)
            assert (reply.status, reply.route) == (200, "remote")
            if await ejections_of(plane, model) > len(refused):
                refused.append(await refusals(model))
        return (*refused, await refusals(model)), await is_back(plane, model)

    with plane.backends.killed(plane.backends.local[0]):
        seen = await models.at_once(asked)

    (first, *_, last), is_over = seen.held
    assert first == 5
    # That of a second may end before the eighth is asked.
    assert last == 5 or is_over
    assert seen.removed[0] == (8,)


async def is_back(plane: Plane, model: Model) -> bool:
    return await plane.envoy.stat(f"cluster.{model.local_cluster}.outlier_detection.ejections_active") == 0


def for_a_second_each_time(cluster: Cluster) -> None:
    if cluster.HasField("outlier_detection"):
        cluster.outlier_detection.max_ejection_time.FromSeconds(1)


async def test_a_replica_that_fails_but_looks_well_is_left_alone_longer_each_time(plane: Plane) -> None:
    """Until its fifth ejection: for a second, two, three and four; the others have had theirs long ago.

    One believes the next check that it is well, the other leaves a replica alone for a second each time.
    """
    wanted = Wanted(check=ReplicaCheck(path="/healthz", interval=timedelta(seconds=1)))
    believing, short = await asyncio.gather(
        serve_both(plane, wanted, cleared("successful_active_health_check_uneject_host")),
        serve_both(plane, wanted, clusters(for_a_second_each_time)),
    )
    models = (believing.held, believing.removed, short.removed)
    await plane.withdraw(short.held)  # the same as the other that has the setting
    await asyncio.gather(*(plane.healthy(model, 3) for model in models))
    bad, *others = plane.backends.local
    stop = asyncio.Event()

    async def load(model: Model) -> Report:
        return await closed_loop(model.url, clients=4, requests=100_000, stop=stop, every=0.05)

    bad.behave("status=503")
    for one in others:
        one.behave("delay=0.02")
    loads = asyncio.gather(*map(load, models))
    try:

        async def is_ejected_again() -> bool:
            return await ejections_of(plane, models[0]) >= 5

        await until(is_ejected_again, "the fifth ejection", within=60)
        held, *without = await asyncio.gather(*(ejections_of(plane, model) for model in models))
    finally:
        stop.set()
        reports = await loads
        for one in plane.backends.local:
            one.behave("")

    assert [report.errors for report in reports] == [{}, {}, {}]
    # In the time of four of its ejections fits more than half as many again of those that last a second.
    assert held == 5
    assert min(without) - 1 >= 1.5 * (held - 1), without


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


async def test_when_nothing_is_believed_to_work_everything_is_tried(plane: Plane) -> None:
    models = await serve_both(plane, Wanted(remote=False, check=OFTEN), clusters(never_panic))

    async def asked(model: Model) -> set[int]:
        await plane.healthy(model, 0)
        return {(await plane.ask(model)).status for _ in range(20)}

    with reporting_unhealthy(plane.backends.local):
        statuses = await models.at_once(asked)

    assert (statuses.held, statuses.removed) == ({200}, {503})


async def test_one_bad_replica_of_three_sends_nothing_away(plane: Plane) -> None:
    without = assignments(lambda assignment: assignment.policy.ClearField("overprovisioning_factor"))
    models = await serve_both(plane, Wanted(check=OFTEN), without)

    async def loaded(model: Model) -> Report:
        await plane.healthy(model, 2)
        return await closed_loop(model.url, clients=16, requests=1_000)

    with plane.backends.killed(plane.backends.local[0]):
        reports = await models.at_once(loaded)

    assert (reports.held.errors, reports.removed.errors) == ({}, {})
    assert reports.held.summary.remote == 0
    assert reports.removed.summary.remote > 20
