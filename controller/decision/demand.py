"""Demand: what a signal would be if every request stayed. Pure.

Offloading lowers the very signal that it watches: half of the requests away halves the CPU, all of them away reads
zero. Compared as it is, the signal would clear, the requests would return, and it would be reached again, for ever. So
what must be clear for requests to return is the demand that would come back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from controller.api.contract.route import Split
from controller.decision.facts import Facts, SentRequests, Signal, Unknown

# A share that is measured from fewer requests says little; the one that was decided is then the better guess.
_ENOUGH = 20

# What a signal shows at a smaller local share is noise, and dividing by the share makes much of it.
_LEAST_SHARE = 0.05


@dataclass(frozen=True, slots=True)
class NotYet:
    """The demand is not known yet, and why: the measurement is older than what was done about the one before."""

    why: str


@dataclass(frozen=True, slots=True)
class Demand:
    """The demand behind one signal, in multiples of its target: at `least` and at `most` so much."""

    least: float
    most: float


Projection = Demand | NotYet | Unknown


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was measured when a breach began, which tells the demand while no request stays.

    `rate` is how many requests a second there were of both sides, `ratios` the signals in multiples of their targets.
    """

    rate: float
    ratios: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class InForce:
    """The split that requests follow, and since when."""

    split: Split
    since: datetime


def request_rate(facts: Facts) -> float | None:
    """Say how many requests a second are sent to both sides; None while that is not known."""
    traffic = facts.traffic
    return traffic.total / traffic.seconds if isinstance(traffic, SentRequests) and traffic.seconds else None


def project(signal: Signal, facts: Facts, in_force: InForce | None, baseline: Baseline | None) -> Projection:
    """Say what a signal would be at 100/0.

    It is proportional to what is local; where it is not (a queue, a latency), the projection errs on the side of more
    demand. While nothing is local it follows the rate of all requests. Without reports of load nobody knows.
    """
    if signal.state == "Unknown" or signal.at is None:
        return Unknown(signal.message or "it was not measured")
    share = _local_share(facts, in_force)
    if in_force and in_force.split.remote and signal.at - signal.window < in_force.since and share < 1:
        return NotYet("it was measured before the split changed")
    if share >= _LEAST_SHARE:
        return Demand(signal.least / share, signal.most / share)
    rate = request_rate(facts)
    if rate is None:
        return Unknown("no request stays, and nothing reports how many there are")
    if baseline is None or not baseline.rate or signal.key not in baseline.ratios:
        return Unknown("no request stays, and nothing tells what it was when they left")
    ratio = baseline.ratios[signal.key] * rate / baseline.rate
    return Demand(ratio, ratio)


def _local_share(facts: Facts, in_force: InForce | None) -> float:
    """Say which part of the requests is local, from 0 to 1: as measured if there are enough of them, else as decided.

    Requests above a limit leave whatever the split says, so what was measured is the better of the two.
    """
    decided = in_force.split.local / 100 if in_force else 1.0
    traffic = facts.traffic
    if isinstance(traffic, SentRequests) and traffic.total >= _ENOUGH:
        return traffic.local / traffic.total
    return decided
