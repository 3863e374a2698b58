"""What came of one input under one policy. Pure."""

from __future__ import annotations

import itertools
import random
from dataclasses import dataclass

from benchmarks.control.demand import Load
from benchmarks.control.policies import REPORT, Policy, Product, Sent
from benchmarks.control.replicas import Replicas

_WAY = 0.1
"""Seconds from a decision until Envoy follows it."""
_TURN = 10.0
"""A share that goes back by so many percent has turned."""
_NEAR = 10.0
"""A share that stays so close to its last is settled."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures: shares of all requests, and seconds. `shares` is what was decided to leave, at each look.

    `writes` is how often the product's decision, or what it remembers, changed.
    """

    waited: float
    away: float
    overload: float
    shares: tuple[float, ...]
    writes: int = 0

    @property
    def changes(self) -> int:
        """How often requests began to leave, or all came back."""
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise((0.0, *self.shares)))

    def turns(self, since: float, until: float) -> int:
        """Count how often the share turned by `_TURN` percent or more."""
        within = self.shares[round(since / REPORT) : round(until / REPORT)]
        if not within:
            return 0
        found, direction, extreme = 0, 0, within[0]
        for share in within:
            if (direction >= 0 and share > extreme) or (direction <= 0 and share < extreme):
                direction = direction or (1 if share > extreme else -1)
                extreme = share
            elif abs(share - extreme) >= _TURN:
                found, direction, extreme = found + 1, -direction, share
        return found

    def settled(self, since: float, until: float) -> int:
        """Count the looks from the first at which anything leaves until the share stays near to its last."""
        first, last = round(since / REPORT), round(until / REPORT)
        within = self.shares[first:last]
        begun = next((number for number, share in enumerate(within) if share), len(within))
        tail = within[len(within) // 2 :]
        final = sum(tail) / len(tail)
        far = [number for number, share in enumerate(within) if abs(share - final) > _NEAR and number >= begun]
        return far[-1] + 1 - begun + 1 if far else 1


def play(load: Load, policy: Policy) -> Outcome:
    """Play one input under one policy."""
    chance = random.Random(load.name)
    law, replicas = policy.law(), Replicas(load.pool)
    requests = iter((*load.requests, (float("inf"), 0.0)))
    arrival, service = next(requests)
    share, coming, shares = 0.0, 0.0, []
    waited = away = overload = local = remote = 0
    for look in range(1, round(load.seconds / REPORT) + 1):
        at = look * REPORT
        while arrival <= at:
            in_force = coming if arrival >= at - REPORT + _WAY else share
            full = policy.overflow and replicas.in_flight(arrival) >= load.pool.size
            if full or chance.random() * 100 < in_force:
                remote, away = remote + 1, away + 1
            else:
                local, waited = local + 1, waited + (replicas.take(arrival, service) > 0)
            arrival, service = next(requests)
        share, coming = coming, law(replicas, Sent(local, remote), at)
        local = remote = 0
        overload += replicas.waiting(at) > 0
        shares.append(coming)
    total, writes = len(load.requests), law.writes if isinstance(law, Product) else 0
    return Outcome(waited / total, away / total, overload * REPORT, tuple(shares), writes)
