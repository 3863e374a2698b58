"""`behavior.maxRequestsPerReplica`: what is more than the replicas take leaves at once, and nothing else does."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from benchmarks.load import Traffic, closed_loop
from tests.data_plane.support.model import Wanted
from tests.data_plane.support.plane import Plane

pytestmark = pytest.mark.asyncio(loop_scope="module")

SLOW = Traffic(headers=lambda _: {"on-local": "delay=0.2", "on-remote": "delay=0.2"})


async def test_below_the_limit_nothing_leaves(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=4))

    report = await closed_loop(model.url, clients=12, requests=600, traffic=SLOW)

    assert (report.errors, report.summary.remote) == ({}, 0)


async def test_of_a_cold_burst_the_excess_leaves(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=4))

    report = await closed_loop(model.url, clients=100, requests=100, traffic=SLOW)

    assert report.errors == {}
    assert 12 <= report.summary.local <= 13  # two workers


async def test_above_the_limit_the_excess_leaves(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=4))

    report = await closed_loop(model.url, clients=36, requests=1_000, traffic=SLOW)

    print(report.summary)
    assert report.errors == {}


async def test_with_the_remote_gone_everything_stays(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=4))

    with plane.backends.killed(plane.backends.remote):
        report = await closed_loop(model.url, clients=36, requests=500, traffic=SLOW)

    assert (report.errors, report.summary.remote) == ({}, 0)


async def test_with_the_replicas_gone_everything_leaves(plane: Plane) -> None:
    model = await plane.serve(Wanted(limit=4))

    with plane.backends.killed(*plane.backends.local):
        report = await closed_loop(model.url, clients=36, requests=500, traffic=SLOW)

    assert (report.errors, report.summary.local) == ({}, 0)
