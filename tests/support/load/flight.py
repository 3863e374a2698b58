"""How many requests are in flight at each moment: a step function of time. Pure; seconds of one clock."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Step(NamedTuple):
    """From `at` on, until the next step, `number` are in flight."""

    at: float
    number: int


def steps_of(spans: Iterable[tuple[float, float]]) -> tuple[Step, ...]:
    """Return how many of the spans (begin, end) overlap; one that ends as another begins does not overlap it."""
    number = 0
    steps = []
    for at, change in sorted(change for begin, end in spans for change in ((begin, 1), (end, -1))):
        number += change
        steps.append(Step(at, number))
    return tuple(steps)


def sum_of(flights: Iterable[Sequence[Step]]) -> tuple[Step, ...]:
    """Add up what several have in flight."""
    changes = sorted((step.at, which, step.number) for which, steps in enumerate(flights) for step in steps)
    numbers: dict[int, int] = {}
    total = 0
    steps = []
    for at, which, number in changes:
        total += number - numbers.get(which, 0)
        numbers[which] = number
        steps.append(Step(at, total))
    return tuple(steps)


def most(steps: Sequence[Step], start: float = -math.inf, end: float = math.inf) -> int:
    """Return the most in flight at any moment of [start, end], what was in flight at its start included."""
    first, last = (bisect_right(steps, moment, key=lambda step: step.at) for moment in (start, end))
    return max((step.number for step in steps[max(first - 1, 0) : last]), default=0)
