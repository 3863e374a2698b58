"""What is sent again to the other side and what is not, and what both sides down looks like."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.route.v3.route_components_pb2 import Route

from controller.api.contract.route import ReplicaCheck
from controller.api.kubernetes.endpoints import Replica
from tests.support.data_plane.backends import Backend
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.mutation import clusters, routes
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.traffic import named_wrongly
from tests.support.data_plane.trap import serve_both
from tests.support.load import Traffic, closed_loop

pytestmark = pytest.mark.asyncio(loop_scope="module")

FAILS_OVER = ["status=502", "status=503", "status=504", "reset=before"]
# Everything a client must see as it is: what is its own fault, what may have had an effect, and too many requests.
PASSES_THROUGH = [400, 401, 403, 404, 409, 422, 429, 500, 501]
SIDES = [("local", "remote", 0), ("remote", "local", 100)]


@pytest.mark.parametrize("failure", FAILS_OVER)
@pytest.mark.parametrize(("side", "other", "away"), SIDES)
async def test_a_failure_is_sent_once_to_the_other_side(
    plane: Plane, side: str, other: str, away: int, failure: str
) -> None:
    model = await plane.serve(Wanted(away=away))

    reply = await plane.ask(model, headers=[(f"on-{side}", failure)])

    reached = sorted(record["servedBy"].partition("-")[0] for record in plane.backends.seen(reply.probe))
    assert (reply.status, reply.route, reached) == (200, other, ["local", "remote"])


@pytest.mark.parametrize(("side", "away"), [("local", 0), ("remote", 100)])
async def test_any_other_status_is_the_clients(plane: Plane, side: str, away: int) -> None:
    model = await plane.serve(Wanted(away=away))

    for status in PASSES_THROUGH:
        reply = await plane.ask(model, headers=[(f"on-{side}", f"status={status};size=321;header=x-why: because")])

        assert (reply.status, reply.route, reply.body) == (status, side, b"x" * 321)
        assert reply.header("x-why") == ["because"]
        assert len(plane.backends.seen(reply.probe)) == 1


async def test_a_body_survives_the_retry_to_the_byte(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=0))
    body = bytes(range(256)) * 4000

    reply = await plane.ask(model, method="POST", headers=[("on-local", "status=503")], content=body)

    digests = {record["sha256"] for record in plane.backends.seen(reply.probe)}
    assert (reply.status, reply.route) == (200, "remote")
    assert digests == {hashlib.sha256(body).hexdigest()}


async def test_an_answer_that_began_is_not_sent_again(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=0))
    before = sum(one.count() for one in plane.backends.all)

    with pytest.raises(httpx.RemoteProtocolError):
        await plane.ask(model, headers=[("on-local", "reset=after")])

    assert sum(one.count() for one in plane.backends.all) - before == 1


@pytest.mark.parametrize("early", [100, 102, 103])
@pytest.mark.parametrize(("side", "other", "away"), SIDES)
async def test_behind_an_early_status_nothing_is_sent_again(
    plane: Plane, side: str, other: str, away: int, early: int
) -> None:
    """Envoy takes it for the beginning of the answer (docs/data-plane.md)."""
    model = await plane.serve(Wanted(away=away))

    reply = await plane.ask(model, headers=[(f"on-{side}", f"early={early};status=503")])

    assert (reply.status, reply.route) == (503, side)
    assert len(plane.backends.seen(reply.probe)) == 1


@contextlib.asynccontextmanager
async def quickly(plane: Plane, folder: Path) -> AsyncIterator[None]:
    """Fail if twenty requests take longer in the block than of a server that takes a quarter of a second for each."""
    server = Backend("slow", plane.network.host(60), folder)
    server.start()
    try:
        model = await plane.serve(Wanted(remote=False, replicas=(Replica(server.host, server.port, ready=True),)))

        async def ask() -> None:
            for _ in range(20):
                assert (await plane.ask(model, headers=[("on-slow", "delay=0.25")])).status == 200

        asked = asyncio.create_task(ask())
        yield
        assert not asked.done()
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    finally:
        server.kill()


@pytest.mark.parametrize("away", [0, 50, 100])
async def test_two_upstream_requests_at_most_when_both_sides_fail(plane: Plane, folder: Path, away: int) -> None:
    model = await plane.serve(Wanted(away=away))
    fails = [("on-local", "status=503"), ("on-remote", "status=503")]

    async with quickly(plane, folder):
        replies = [await plane.ask(model, headers=fails) for _ in range(20)]

    assert {reply.status for reply in replies} == {503}
    assert max(len(plane.backends.seen(reply.probe)) for reply in replies) <= 2


@pytest.mark.parametrize("away", [0, 50, 100])
async def test_both_sides_gone_is_a_quick_503(plane: Plane, folder: Path, away: int) -> None:
    model = await plane.serve(Wanted(away=away))

    with plane.backends.killed(*plane.backends.all):
        async with quickly(plane, folder):
            replies = [await plane.ask(model) for _ in range(20)]

    assert {reply.status for reply in replies} == {503}


@pytest.mark.parametrize("trouble", ["gone", "failing"])
async def test_nothing_leaves_without_a_remote(plane: Plane, trouble: str) -> None:
    model = await plane.serve(Wanted(remote=False))
    before = plane.backends.remote.count()

    with plane.backends.killed(*(plane.backends.local if trouble == "gone" else ())):
        replies = [await plane.ask(model, headers=[("on-local", "status=503")]) for _ in range(20)]

    assert {reply.status for reply in replies} == {503}
    assert plane.backends.remote.count() == before


async def test_with_no_replica_and_no_remote_the_answer_is_503(plane: Plane) -> None:
    model = await plane.serve(Wanted(remote=False, replicas=()))

    assert (await plane.ask(model)).status == 503


@pytest.mark.parametrize("away", [0, 20])
async def test_with_no_replica_from_the_start_everything_goes_remote(plane: Plane, away: int) -> None:
    model = await plane.serve(Wanted(away=away, replicas=()))

    assert {(await plane.ask(model)).route for _ in range(20)} == {"remote"}


async def test_a_remote_killed_under_load_fails_no_request(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=50))
    answered = 0

    def kill_and_revive(_: object) -> None:
        nonlocal answered
        answered += 1
        if answered == 500:
            plane.backends.remote.kill()
        elif answered == 1_500:
            plane.backends.remote.revive()

    report = await closed_loop(
        model.url, clients=50, requests=2_000, traffic=Traffic(fault=named_wrongly, on_sample=kill_and_revive)
    )

    assert report.errors == {}
    # Half of what was asked while it was there, and all that was meanwhile.
    assert report.summary.local > 1_000


async def test_a_remote_whose_name_is_unknown_fails_no_request(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=100, host="no-such-host.invalid"))

    replies = [await plane.ask(model) for _ in range(20)]

    assert {(reply.status, reply.route) for reply in replies} == {(200, "local")}


def never_ejected(cluster: Cluster) -> None:
    cluster.ClearField("outlier_detection")


def few_attempts(route: Route) -> None:
    if route.route.retry_policy.retry_host_predicate:
        route.route.retry_policy.host_selection_retry_max_attempts = 5


async def test_a_retry_that_may_not_leave_finds_the_replica_that_works(plane: Plane) -> None:
    """The one that fails has the fewest requests in flight, so that it is the first choice each time."""
    # Or a check that comes late under this load would leave the one that fails alone.
    check = ReplicaCheck(path="/healthz", interval=timedelta(minutes=1))
    wanted = Wanted(remote=False, replicas=plane.backends.replicas[:2], check=check, change=clusters(never_ejected))
    models = await serve_both(plane, wanted, routes(few_attempts))
    failing, working = plane.backends.local[:2]
    failing.behave("delay=0.1;status=503")
    working.behave("delay=0.5")
    try:
        reports = await models.at_once(lambda model: closed_loop(model.url, clients=200, requests=200))
    finally:
        for one in (failing, working):
            one.behave("")

    assert reports.held.errors == {}
    assert reports.removed.errors != {}
