"""How many requests are in flight at each moment: a step function of time. Pure; seconds of one clock."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """From `at` on, until the next step, `count` are in flight."""

    at: float
    count: int


def steps_of(spans: Iterable[tuple[float, float]]) -> tuple[Step, ...]:
    """Return how many of the spans (begin, end) overlap; one that ends as another begins does not overlap it."""
    count = 0
    steps = []
    for at, change in sorted(change for begin, end in spans for change in ((begin, 1), (end, -1))):
        count += change
        steps.append(Step(at, count))
    return tuple(steps)


def sum_of(flights: Iterable[Sequence[Step]]) -> tuple[Step, ...]:
    """Add up what several have in flight."""
    changes = sorted((step.at, number, step.count) for number, steps in enumerate(flights) for step in steps)
    counts: dict[int, int] = {}
    total = 0
    steps = []
    for at, number, count in changes:
        total += count - counts.get(number, 0)
        counts[number] = count
        steps.append(Step(at, total))
    return tuple(steps)


def most(steps: Sequence[Step], start: float = -math.inf, end: float = math.inf) -> int:
    """Return the most in flight at any moment of [start, end], what was in flight at its start included."""
    first, last = (bisect_right(steps, moment, key=lambda step: step.at) for moment in (start, end))
    return max((step.count for step in steps[max(first - 1, 0) : last]), default=0)
