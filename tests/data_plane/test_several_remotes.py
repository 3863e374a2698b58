"""A model with two remote backends: their shares, and who answers when others are gone."""

from __future__ import annotations

import math
from collections import Counter
from datetime import timedelta

import pytest

from tests.support.data_plane.model import Wanted
from tests.support.data_plane.plane import Plane
from tests.support.load import Traffic, closed_loop
from tests.support.load.report import Sample

pytestmark = pytest.mark.asyncio(loop_scope="module")

# A remote that has a time for its answer is reached through the internal listener in front of it.
ways = pytest.mark.parametrize("answer_timeout", [None, timedelta(seconds=30)], ids=["directly", "by a listener"])


@ways
async def test_each_side_gets_its_share(plane: Plane, answer_timeout: timedelta | None) -> None:
    wanted = Wanted(away=50, other_remotes=(("remote-b", 20),), answer_timeout=answer_timeout)
    model = await plane.serve(wanted)
    routes: Counter[str] = Counter()

    def count(sample: Sample) -> None:
        routes[sample.route] += 1

    report = await closed_loop(model.url, clients=32, requests=4_000, traffic=Traffic(on_sample=count))

    assert report.errors == {}
    assert sum(routes.values()) == 4_000
    for side, percent in {"local": 50, "remote": 30, "remote-b": 20}.items():
        share = percent / 100
        assert abs(routes[side] / 4_000 - share) <= 5.5 * math.sqrt(share * (1 - share) / 4_000), routes


@ways
@pytest.mark.parametrize("away", [0, 100])
async def test_with_the_replicas_and_the_first_remote_gone_the_second_answers(
    plane: Plane, away: int, answer_timeout: timedelta | None
) -> None:
    # Nobody listens there.
    gone = plane.network.host(200)
    wanted = Wanted(away=away, replicas=(), host=gone, other_remotes=(("remote-b", 0),), answer_timeout=answer_timeout)
    model = await plane.serve(wanted)

    replies = [await plane.ask(model, "POST", "chat", content=b"hello") for _ in range(20)]

    assert Counter((one.status, one.route) for one in replies) == {(200, "remote-b"): 20}
