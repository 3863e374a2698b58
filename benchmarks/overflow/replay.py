"""The replay of a trace through one stage, beside the metric loop that the policy may have."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from benchmarks.overflow.plan import Plan
from benchmarks.overflow.policies import Policy, share_away
from benchmarks.overflow.stage import Stage
from tests.support.load import Answer, Report, Sample, Traffic, open_loop

_PATIENCE = 120.0
"""Seconds that a client waits: longer than any queue here, so that waiting is seen as waiting."""


async def replayed(stage: Stage, policy: Policy, plan: Plan, on_sample: Callable[[Sample], None]) -> Report:
    """Send the requests of a plan, and decide as the policy does."""
    traffic = Traffic(timeout=_PATIENCE, note=_on_arrival, on_sample=on_sample)
    if policy.interval is None:
        return await open_loop(stage.url, plan.arrivals, traffic)
    deciding = asyncio.create_task(_metric_loop(stage, policy.interval * plan.scale, plan))
    try:
        return await open_loop(stage.url, plan.arrivals, traffic)
    finally:
        deciding.cancel()
        await asyncio.wait([deciding])
        if not deciding.cancelled():
            deciding.result()  # it never ends by itself: this says why it did


async def _metric_loop(stage: Stage, interval: float, plan: Plan) -> None:
    """Set the split by what arrived since it was last set, and what waits; times are those of the load."""
    clock = asyncio.get_running_loop().time
    then, (before, _) = clock(), await stage.counts()
    while True:
        await asyncio.sleep(max(0.0, then + interval - clock()))
        now, (count, in_flight) = clock(), await stage.counts()
        stage.split(share_away((count - before) / (now - then), plan.capacity, in_flight - plan.pool.size))
        then, before = now, count


def _on_arrival(answer: Answer) -> str:
    return answer.headers.get("x-on-arrival", "")
