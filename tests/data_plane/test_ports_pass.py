"""A port that passes from one model to another: no client is refused, and all of them meet the new model at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

import pytest

from controller.api.timing import Timing
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.load import Report, Sample, Traffic, closed_loop
from tests.support.timing import PATIENT
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Which model answers is told by the side that does.
HERE, AWAY = Wanted(), Wanted(away=100)


@pytest.fixture(scope="module")
def timing() -> Timing:
    """A port that a model left is served on for longer than any of these tests."""
    return replace(PATIENT, gateway=replace(PATIENT.gateway, vacated=600))


@dataclass
class Clients:
    """Clients of one port; some keep their connection, the others connect anew for each request."""

    url: str
    samples: list[Sample] = field(default_factory=list)
    turn: int = 0
    """Which each request says, and its answer again."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> list[Report]:
        """Ask until told to stop."""
        loops = (
            closed_loop(
                self.url,
                clients=4,
                requests=200_000,
                traffic=Traffic(
                    headers=self._saying_the_turn,
                    keepalive=keepalive,
                    note=lambda answer: answer.headers.get("x-turn", ""),
                    on_sample=self.samples.append,
                ),
                stop=self.stop,
                every=0.005,
            )
            for keepalive in (True, False)
        )
        return list(await asyncio.gather(*loops))

    def _saying_the_turn(self, _: int) -> dict[str, str]:
        return dict.fromkeys(("on-local", "on-remote"), f"header=x-turn:{self.turn}")

    async def some_more(self) -> list[Sample]:
        """Wait for a hundred more answers, and return those that were not on their way already."""
        self.turn += 1
        turn, before = str(self.turn), len(self.samples)

        def asked_since() -> list[Sample]:
            # One that failed says nothing, and is an error at the end.
            return [one for one in self.samples[before:] if one.note == turn]

        await until(lambda: len(asked_since()) >= 100, f"100 more answers at {self.url}")
        return asked_since()


@asynccontextmanager
async def asked_all_the_time(*models: Model) -> AsyncIterator[list[Clients]]:
    """Have clients at the ports of these models, none of whom may meet an error."""
    clients = [Clients(model.url) for model in models]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one.run()) for one in clients]
        try:
            for one in clients:
                await one.some_more()
            yield clients
        finally:
            for one in clients:
                one.stop.set()
    assert [report.errors for task in tasks for report in task.result()] == [{}] * 2 * len(models)


async def test_models_swap_their_ports(plane: Plane) -> None:
    here, away = await plane.serve(HERE), await plane.serve(AWAY)
    async with asked_all_the_time(here, away) as (first, second):
        # One after the other, as their statuses are written.
        await plane.change(replace(here, url=away.url), HERE)
        assert {one.route for one in await second.some_more()} == {"local"}
        assert {one.route for one in await first.some_more()} == {"local"}
        await plane.change(replace(away, url=here.url), AWAY)
        assert {one.route for one in await first.some_more()} == {"remote"}
        assert {one.route for one in await second.some_more()} == {"local"}
    assert plane.refused() == {}


async def test_a_row_of_models_moves_up(plane: Plane) -> None:
    first, second, free = await plane.serve(HERE), await plane.serve(AWAY), await plane.serve(HERE)
    plane.remove(free)
    async with asked_all_the_time(first, second, free) as (at_first, at_second, at_free):
        for model, port in ((second, free), (first, second)):
            await plane.change(replace(model, url=port.url), model.wanted)
            await at_first.some_more()
        assert {one.route for one in await at_first.some_more()} == {"local"}  # nobody took it
        assert {one.route for one in await at_second.some_more()} == {"local"}
        assert {one.route for one in await at_free.some_more()} == {"remote"}
    assert plane.refused() == {}


async def test_a_model_is_renamed(plane: Plane) -> None:
    old, new = await plane.serve(HERE), await plane.serve(AWAY)
    async with asked_all_the_time(old) as (clients,):
        plane.remove(old)
        assert {one.route for one in await clients.some_more()} == {"local"}
        await plane.change(replace(new, url=old.url), AWAY)
        assert {one.route for one in await clients.some_more()} == {"remote"}
    assert plane.refused() == {}
