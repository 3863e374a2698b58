"""What chance alone allows: how soon anybody can know how large a step of the demand is. Pure."""

from __future__ import annotations

import random

_STREAMS, _LOOKS = 2000, 120


def settled_within(looks: int, rate: float, bears: float, every: float, near: float) -> float:
    """Say in which part of many streams a law that is told everything is settled within so many looks after a step.

    It is told when the step was, that all requests since are of it, how many a second the replicas shall have
    (`bears`), and at each look, `every` so many seconds and at once, the number of requests since the step. What leaves
    is exact about that number. It is settled once that stays within `near` percent of what is right for `rate`.
    """
    chance = random.Random(f"{rate} {bears} {every}")
    return sum(_settled(chance, rate, bears, every, near) <= looks for _ in range(_STREAMS)) / _STREAMS


def _settled(chance: random.Random, rate: float, bears: float, every: float, near: float) -> int:
    """Count the looks until the share of one stream stays near to the right one."""
    right, far, count, at = 100 * (1 - bears / rate), 0, 0, chance.expovariate(rate)
    for look in range(1, _LOOKS + 1):
        while at <= look * every:
            count, at = count + 1, at + chance.expovariate(rate)
        share = 100 * max(1 - bears * look * every / count, 0.0) if count else 0.0
        if abs(share - right) > near:
            far = look
    return far + 1
