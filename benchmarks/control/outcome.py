"""What came of one input under one policy. Pure."""

from __future__ import annotations

import bisect
import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.control.demand import Load
from benchmarks.control.policies import BEARS, REPORT, Policy, Product, Sent
from benchmarks.control.replicas import Replicas

_WAY = 0.1
"""Seconds from a decision until Envoy follows it."""
_TURN = 10.0
"""A share that goes back by so many percent has turned."""
_NEAR = 10.0
"""A share that stays so close to its last is settled."""
_TOLERANCE, _ENDS = 0.1, 60.0
"""The product's `tolerance` and `restoreAfter`, in seconds."""


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
    def begun(self) -> int:
        """How often requests began to leave."""
        return sum(later > 0 and not now for now, later in itertools.pairwise((0.0, *self.shares)))

    @property
    def changes(self) -> int:
        """How often requests began to leave, or all came back."""
        return sum((a > 0) != (b > 0) for a, b in itertools.pairwise((0.0, *self.shares)))

    def turns(self, since: float, until: float) -> int:
        """Count how often the share turned by `_TURN` percent or more."""
        return _turns(self.shares[round(since / REPORT) : round(until / REPORT)])

    def settled(self, since: float, until: float) -> int:
        """Count the looks from the first at which anything leaves until the share stays near to its last."""
        first, last = round(since / REPORT), round(until / REPORT)
        within = self.shares[first:last]
        begun = next((number for number, share in enumerate(within) if share), len(within))
        tail = within[len(within) // 2 :]
        final = sum(tail) / len(tail)
        far = [number for number, share in enumerate(within) if abs(share - final) > _NEAR and number >= begun]
        return far[-1] + 1 - begun + 1 if far else 1


@dataclass(frozen=True, slots=True)
class Asked:
    """What an input asks for: so many turns of the share, and so many times that it begins to leave.

    The turns are those of who knows the demand at each moment, without delay and without chance, and keeps the replicas
    at what they bear. A surge begins when as many requests would be served at once, if none had to wait, as the target
    of a metric is, and has ended when there were fewer by `_TOLERANCE` for `_ENDS`, as the product has it. An input
    that is steady for a while was made with one.
    """

    turns: int
    surges: int

    @classmethod
    def by(cls, load: Load, target: float = 1.0) -> Asked:
        """Look at an input; `target` is which part of the places is taken when a metric is at its target."""
        looks = [look * REPORT for look in range(1, round(load.seconds / REPORT) + 1)]
        demands = [load.demand(at) for at in looks]
        turns = _turns([100 * max(1 - BEARS / one, 0.0) if one else 0.0 for one in demands])
        return cls(turns, 1 if load.steady else _surges(load, looks, target))


def _surges(load: Load, looks: Sequence[float], target: float) -> int:
    begins = [at for at, _ in load.requests]
    ends = sorted(at + service for at, service in load.requests)
    found, loud_at = 0, -math.inf
    for at in looks:
        served = (bisect.bisect_right(begins, at) - bisect.bisect_right(ends, at)) / load.pool.size
        goes_on = at - loud_at <= _ENDS
        found += served >= target and not goes_on
        if served >= target or (goes_on and served >= (1 - _TOLERANCE) * target):
            loud_at = at
    return found


def _turns(shares: Sequence[float]) -> int:
    """Count how often a share went back by `_TURN` percent or more after it had gone the other way."""
    if not shares:
        return 0
    found, direction, extreme = 0, 0, shares[0]
    for share in shares:
        if (direction >= 0 and share > extreme) or (direction <= 0 and share < extreme):
            direction = direction or (1 if share > extreme else -1)
            extreme = share
        elif abs(share - extreme) >= _TURN:
            found, direction, extreme = found + 1, -direction, share
    return found


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
