"""What Envoy counted while nobody listened is in its first report to the next server."""

from __future__ import annotations

import asyncio

import pytest

from controller.api.contract.reports import Count
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.plane import Plane
from tests.support.load import Traffic, closed_loop
from tests.support.waiting import until
from xds_server.loads.loads import Loads

pytestmark = pytest.mark.asyncio(loop_scope="module")


class Sending:
    """Requests of four clients, some of them always on their way."""

    def __init__(self, url: str) -> None:
        self._answered = 0
        self._stop = asyncio.Event()
        behaviour = {"on-local": "delay=0.02", "on-remote": "delay=0.02"}
        traffic = Traffic(headers=lambda _: behaviour, on_sample=self._count)
        self._task = asyncio.create_task(
            closed_loop(url, clients=4, requests=100_000, traffic=traffic, stop=self._stop)
        )

    def _count(self, _: object) -> None:
        self._answered += 1

    async def some_more(self, count: int = 20) -> None:
        goal = self._answered + count

        async def reached() -> bool:
            return self._answered >= goal

        await until(reached, "more answers", within=30)

    async def ended(self) -> tuple[int, int]:
        """Say how many were answered on each side; none may have failed."""
        self._stop.set()
        report = await self._task
        assert not report.errors
        return report.summary.local, report.summary.remote


async def test_a_server_that_is_started_again_under_load_loses_and_doubles_nothing(plane: Plane) -> None:
    """Envoy asks again after five seconds; what it sent meanwhile is in its first report."""
    for _ in range(20):
        if await _lost_and_doubled_nothing(plane):
            return
    raise AssertionError("whenever the server was stopped, a report was on its way")


async def _lost_and_doubled_nothing(plane: Plane) -> bool:
    """Say whether it shows anything: a report that was on its way to the server as that ended is lost, of course."""
    model = await plane.serve(Wanted(away=50))
    local, remote = f"{model.key}/local", f"{model.key}/remote"
    await plane.healthy(model, 3)

    async def is_reported_on() -> bool:
        return local in plane.loads.in_flight(asyncio.get_running_loop().time())

    await until(is_reported_on, "Envoy reports on the model", within=30)
    await plane.told_of_loads()  # by now on all of its clusters: one may have been new for longer than another
    old, sending = plane.loads, Sending(model.url)

    async def some_are_reported() -> bool:
        return bool(succeeded(old, local))

    await until(some_are_reported, "a report of some", within=30)

    # Some are counted and not reported yet, if Envoy has sent no report since the last one that was heard.
    before = await plane.envoy.stat(_SENT)
    await plane.told_of_loads()
    reported, sent = succeeded(old, local), await plane.envoy.stat(_SENT)
    up_to_three_reports = sent - before
    ended = await plane.envoy.stat(_ENDED)
    await sending.some_more(4)
    restarting = asyncio.create_task(plane.restart(pause=1))

    async def has_stopped() -> bool:
        return await plane.envoy.stat(_ENDED) > ended

    await until(has_stopped, "the server has stopped")
    more = await plane.envoy.stat(_SENT) - sent  # what ends a connection is far less than a report
    was_on_its_way = succeeded(old, local) != reported or more > up_to_three_reports / 4
    await restarting
    if was_on_its_way:
        await sending.ended()
        await plane.withdraw(model)
        return False
    assert plane.loads.in_flight(asyncio.get_running_loop().time()) == {}, "nothing was heard: unknown, not zero"
    await sending.some_more()
    asked = await sending.ended()

    def both() -> tuple[int, int]:
        return tuple(sum(succeeded(loads, side) for loads in (old, plane.loads)) for side in (local, remote))

    async def all_are_counted() -> bool:
        return sum(both()) >= sum(asked)

    await until(all_are_counted, f"{asked} are counted", within=30)
    await plane.told_of_loads()
    assert both() == asked
    return True


_SENT = "cluster.xds_server.upstream_cx_tx_bytes_total"
"""How many bytes Envoy has sent to the server: of reports, where nothing else changes."""
_ENDED = "cluster.xds_server.upstream_cx_destroy"
"""How many of its connections to a server have ended."""


def succeeded(loads: Loads, side: str) -> int:
    return loads.totals().get(side, Count()).succeeded
