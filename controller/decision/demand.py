"""Demand: what a signal would be if every request stayed. Pure.

Offloading lowers the very signal that it watches: half of the requests away halves the CPU, all of them away reads
zero. Compared as it is, the signal would clear, the requests would return, and it would be reached again, for ever. So
what must be clear for requests to return is the demand that would come back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from controller.api.contract.route import Split
from controller.decision.facts import Facts, SentRequests, Signal, Unknown
from controller.decision.stayed import Stayed, mean_of

# What a signal shows at a smaller local share is noise, and dividing by the share makes much of it.
LEAST_SHARE = 0.05

# A rate over fewer seconds is wrong by what was not reported yet.
LEAST_SECONDS = 5.0

_UNDECIDED = Split.away(0)


@dataclass(frozen=True, slots=True)
class NotYet:
    """The demand is not known yet, and why: the measurement is older than what was done about the one before."""

    why: str


@dataclass(frozen=True, slots=True)
class Demand:
    """The demand behind one signal, in multiples of its target: at `least` and at `most` so much.

    `by_rate` is what it is by the number of requests alone, compared with those of the breach: how a signal is that
    rises at the limit only, such as a queue. Half of the requests make far less than half of a queue.
    """

    least: float
    most: float
    by_rate: float = 0.0


Projection = Demand | NotYet | Unknown


@dataclass(frozen=True, slots=True)
class Projected:
    """One signal and the demand behind it."""

    signal: Signal
    demand: Projection

    @property
    def is_unknown(self) -> bool:
        """Whether nothing is known of it, not even that the demand is its target at the least."""
        tells = isinstance(self.demand, NotYet) or (isinstance(self.demand, Demand) and self.demand.least >= 1)
        return self.signal.state == "Unknown" and not tells

    @property
    def in_words(self) -> str:
        """Write the demand as a share of the target, or why it is not known."""
        if not isinstance(self.demand, Demand):
            return self.demand.why
        return f"at least {self.demand.least:.0%}" if self.signal.at_least else f"{self.demand.most:.0%}"

    def is_clear(self, below: float) -> bool:
        """Whether the demand that would come back is below so many times the target."""
        return isinstance(self.demand, Demand) and self.demand.most < below

    def may_be_clear(self, below: float) -> bool:
        """Whether it is clear, or would be if a few requests stayed to measure it."""
        if isinstance(self.demand, Unknown):
            return self.signal.state != "Unknown"
        return isinstance(self.demand, Demand) and self.demand.least < below and not self.signal.at_least

    def is_doubted(self, below: float) -> bool:
        """Whether the signal is clear though as many requests arrive as when it was reached."""
        return isinstance(self.demand, Demand) and self.demand.by_rate >= below


@dataclass(frozen=True, slots=True)
class Baseline:
    """What was measured during a breach, which tells the demand while no request stays.

    `rate` is how many requests a second there were of both sides and `replicas` how many were ready, `ratios` the
    signals at 100/0 in multiples of their targets.
    """

    rate: float
    replicas: int
    ratios: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class InForce:
    """The split that requests follow, and since when.

    Until `settled_at` requests may be in flight that followed a split before it, by which `before` percent were local.
    `stayed` is what was local before it, since the law changed the split: other rules have changed it since then.
    """

    split: Split
    since: datetime
    before: int = 0
    settled_at: datetime | None = None
    stayed: tuple[Stayed, ...] = ()

    @property
    def known_since(self) -> datetime:
        """Since when it is known what was local, with no step of the law in between."""
        return self.stayed[0].since if self.stayed else self.since


def request_rate(facts: Facts) -> float | None:
    """Say how many requests a second are sent to both sides; None while that is not known."""
    traffic = facts.traffic
    known = isinstance(traffic, SentRequests) and traffic.seconds >= LEAST_SECONDS
    return traffic.total / traffic.seconds if isinstance(traffic, SentRequests) and known else None


def project(signal: Signal, facts: Facts, in_force: InForce | None, baseline: Baseline | None) -> Projection:
    """Say what a signal would be at 100/0.

    It is taken to be proportional to what is local; while nothing is local it follows the rate of all requests. What is
    no part of the load, such as the number of all requests, makes the demand larger than it is, never smaller.
    """
    if signal.at is None or (signal.state == "Unknown" and not signal.at_least):
        return Unknown(signal.message or "it was not measured")
    if in_force and signal.at - signal.window < in_force.known_since:
        return NotYet("it was measured before the split changed")
    share = local_share(facts, in_force.split if in_force else None)
    if in_force and in_force.stayed:
        now = Stayed(since=in_force.since, local=share)
        share = mean_of((*in_force.stayed, now), signal.at - signal.window, signal.at)
    requests = _requests(signal, facts, baseline)
    ratio = baseline.ratios.get(signal.key) if baseline else None
    if share >= LEAST_SHARE:
        is_told = share == 1 or ratio is None or requests is None
        by_rate = 0.0 if is_told else min(ratio or 0.0, 1.0) * (requests or 0.0)
        largest = share
        if in_force and in_force.settled_at and signal.at < in_force.settled_at:
            largest = max(share, in_force.before / 100)
        return Demand(signal.least / largest, signal.most / share, by_rate)
    if requests is None and request_rate(facts) is None:
        return Unknown("no request stays, and nothing reports how many there are")
    if requests is None or ratio is None:
        return Unknown("no request stays, and nothing tells what it was when they left")
    by_rate = min(ratio, 1.0) * requests
    return Demand(max(by_rate, signal.least), max(ratio * requests, signal.most), by_rate)


def _requests(signal: Signal, facts: Facts, baseline: Baseline | None) -> float | None:
    """Say how many requests there are in multiples of those at the breach, for each replica if the signal is.

    None where that is not known: also where those at the breach are too few to be divided by, as no Envoy counts them.
    """
    rate = request_rate(facts)
    if rate is None or baseline is None or baseline.rate <= 0:
        return None
    scaled = baseline.replicas / max(facts.local.ready, 1) if signal.per_replica and baseline.replicas else 1.0
    multiple = rate / baseline.rate * scaled
    return multiple if math.isfinite(multiple) else None


def local_share(facts: Facts, decided: Split | None) -> float:
    """Say which part of the requests is local, from 0 to 1: as decided, unless what was counted cannot be that.

    Requests above a limit leave whatever the split says, and so do those that a replica failed.
    """
    split = decided or _UNDECIDED
    traffic = facts.traffic
    if isinstance(traffic, SentRequests) and traffic.deviates(split):
        return traffic.local / traffic.total
    return split.local / 100
