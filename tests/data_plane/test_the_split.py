"""Where requests go: the weights, and the header that says which side answered."""

from __future__ import annotations

import math

import pytest

from tests.support.data_plane.model import Wanted
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.traffic import named_wrongly
from tests.support.load import Traffic, closed_loop

pytestmark = pytest.mark.asyncio(loop_scope="module")


# Where all goes one way there is nothing statistical: a tenth of the requests says as much.
@pytest.mark.parametrize(
    ("away", "requests"), [(0, 1_000), (1, 4_000), (20, 4_000), (50, 4_000), (80, 4_000), (100, 1_000)]
)
async def test_requests_are_split_as_the_weights_say(plane: Plane, away: int, requests: int) -> None:
    model = await plane.serve(Wanted(away=away))

    report = await closed_loop(model.url, clients=32, requests=requests, traffic=Traffic(fault=named_wrongly))

    share = away / 100
    bound = 5.5 * math.sqrt(share * (1 - share) / requests)
    assert report.errors == {}
    assert abs(report.summary.remote / requests - share) <= bound
    assert report.summary.local + report.summary.remote == requests
