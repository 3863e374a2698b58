"""What leaves for what was measured: when that begins, how much it is, and when it ends. Pure.

`follow` is asked at every evaluation, whatever other rule is in force, so that what it remembers is never older than
what was measured. It works on the demand that would come back (demand.py), so it does not oscillate by what it does
itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.api.contract.route import Split
from controller.decision.decision import Memory, Overload
from controller.decision.demand import (
    LEAST_SHARE,
    Baseline,
    Demand,
    InForce,
    NotYet,
    Projection,
    project,
    request_rate,
)
from controller.decision.facts import Facts, Signal, Unknown
from controller.intent.intent import Terms

# How many percent of the requests stay while that is the only way to find out what the demand is.
PROBE = 10

# So many times `restoreAfter` passes before requests return on what a signal shows while as many of them arrive as when
# it was reached: a queue is empty as soon as a part of its requests leaves, and full again when they are back.
DOUBTED = 10

# The proportional law leaves enough at the replicas to measure the demand there.
_MOST_AWAY = round(100 * (1 - LEAST_SHARE))

# For so many `stepInterval` after a series of steps began, requests of before it may still be in flight.
_SETTLES = 5

# What was measured so lately belongs to the requests that arrive now.
_JUST_NOW = timedelta(seconds=15)


@dataclass(frozen=True, slots=True)
class Projected:
    """One signal and the demand behind it."""

    signal: Signal
    demand: Projection

    def is_clear(self, below: float) -> bool:
        """Whether the demand that would come back is below so many times the target."""
        return isinstance(self.demand, Demand) and self.demand.most < below

    def may_be_clear(self, below: float) -> bool:
        """Whether it is clear, or would be if a few requests stayed to measure it."""
        if isinstance(self.demand, Unknown):
            return self.signal.state != "Unknown"
        return isinstance(self.demand, Demand) and self.demand.least < below

    def is_doubted(self, below: float) -> bool:
        """Whether the signal is clear though as many requests arrive as when it was reached."""
        return isinstance(self.demand, Demand) and self.demand.by_rate >= below


def measure(facts: Facts, memory: Memory, settles: timedelta = timedelta(0)) -> tuple[Projected, ...]:
    """Say what demand is behind each signal; requests are in flight for so long after the split changed."""
    overload, in_force = memory.overload, None
    if memory.split and memory.split_since:
        in_force = InForce(memory.split, memory.split_since)
        if overload and overload.series_since:
            before, settled_at = 100 - overload.before_steps, overload.series_since + settles
            in_force = InForce(memory.split, memory.split_since, before, settled_at)
    baseline = Baseline(overload.rate, overload.replicas, overload.ratios) if overload and overload.rate else None
    return tuple(Projected(one, project(one, facts, in_force, baseline)) for one in facts.signals)


def follow(terms: Terms, facts: Facts, memory: Memory, now: datetime) -> Memory:
    """Return the memory that has seen what was measured at `now`."""
    behavior, overload = terms.behavior, memory.overload
    if not facts.signals or not terms.enabled or not behavior.percentage:
        return memory.model_copy(update={"breached_since": None, "overload": None})
    if overload is not None and overload.withdrawn_at is not None:
        is_known = any(one.state != "Unknown" for one in facts.signals)
        if not is_known or now - overload.withdrawn_at < behavior.restore_after:
            return memory
        overload = None
    if overload is None:
        return _begin(terms, facts, memory.model_copy(update={"overload": None}), now)
    measured = measure(facts, memory, _settles(terms))
    left = _clear_or_not(terms, measured, overload, now)
    if left is not None and left.withdrawn_at is None:
        left = _learned(left, facts, measured, now)
        if is_proportional(terms):
            left = _proportional(terms, measured, left, memory.split, now)
        else:
            left = _threshold(terms, facts, measured, left, now)
    return memory.model_copy(update={"breached_since": None, "overload": left})


def _settles(terms: Terms) -> timedelta:
    return _SETTLES * terms.behavior.step_interval


def _lasts(terms: Terms) -> timedelta:
    """How long the replicas must be below their target before the proportional law sends less."""
    return terms.behavior.restore_after / 4


def _begin(terms: Terms, facts: Facts, memory: Memory, now: datetime) -> Memory:
    """Begin when any metric has been at or over its target for `offloadAfter`."""
    breached = [one for one in facts.signals if one.state == "Breached"]
    if not breached:
        return memory.model_copy(update={"breached_since": None})
    since = memory.breached_since or now
    if now - since < terms.behavior.offload_after:
        return memory.model_copy(update={"breached_since": since})
    overload: Overload | None = Overload(
        since=now,
        share=terms.behavior.percentage,
        cause=", ".join(words_of(one) for one in breached),
        rate=request_rate(facts),
        replicas=facts.local.ready,
        ratios={one.key: one.least for one in facts.signals if one.state != "Unknown"},
    )
    if overload and is_proportional(terms):
        # What is measured now is at least what it would be at 100/0, wherever requests went until now.
        measured = [Projected(one, Demand(one.least, one.most)) for one in breached]
        overload = _proportional(terms, measured, overload.model_copy(update={"share": 0}), memory.split, now)
    return memory.model_copy(update={"breached_since": None, "overload": overload})


def _clear_or_not(terms: Terms, measured: Collection[Projected], overload: Overload, now: datetime) -> Overload | None:
    """Say since when all is clear; None when that has been so for long enough, and everything comes back.

    It is clear once below the target by the tolerance, and no longer when half of that is used up.
    """
    behavior = terms.behavior
    if all(one.signal.state == "Unknown" for one in measured):
        withdrawn_at = now if behavior.on_unknown == "Local" else None
        return overload.model_copy(update={"cleared_since": None, "withdrawn_at": withdrawn_at})
    if any(isinstance(one.demand, NotYet) for one in measured):
        return overload  # what is measured next tells
    below = 1 - behavior.tolerance / (2 if overload.cleared_since else 1)
    if not all(one.is_clear(below) for one in measured):
        return overload.model_copy(update={"cleared_since": None})
    since = overload.cleared_since or now
    if now - since >= behavior.restore_after * (DOUBTED if is_doubted(terms, measured) else 1):
        return None
    return overload.model_copy(update={"cleared_since": since})


def is_doubted(terms: Terms, measured: Iterable[Projected]) -> bool:
    """Whether signals are clear and the number of requests is not, so that they return only after much longer."""
    below = 1 - terms.behavior.tolerance
    return not is_proportional(terms) and any(one.is_doubted(below) for one in measured)


def _learned(overload: Overload, facts: Facts, measured: Iterable[Projected], now: datetime) -> Overload:
    """Take up the rate of requests if nothing told it before: of a breach of just now, or with a demand above a target.

    Requests that just returned were not counted for long enough when the target is reached again at once.
    """
    ratios = {one.signal.key: one.demand.least for one in measured if isinstance(one.demand, Demand)}
    rate = request_rate(facts)
    if overload.rate or not rate:
        return overload
    if max(ratios.values(), default=0.0) < 1:
        if now - overload.since > _JUST_NOW or not overload.ratios or overload.probing_since:
            return overload
        ratios = overload.ratios
    return overload.model_copy(update={"rate": rate, "replicas": facts.local.ready, "ratios": ratios})


def _threshold(
    terms: Terms, facts: Facts, measured: Collection[Projected], overload: Overload, now: datetime
) -> Overload:
    """Send `percentage`; where that leaves nothing to measure and the demand may be clear, a few less for a while."""
    behavior = terms.behavior
    began = overload.probing_since or overload.stepped_at or overload.since
    is_over = now - began >= behavior.restore_after
    below = 1 - behavior.tolerance
    if overload.probing_since is None:
        helps = behavior.percentage > 100 - PROBE and overload.cleared_since is None
        if is_over and helps and all(one.may_be_clear(below) for one in measured):
            return overload.model_copy(update={"share": 100 - PROBE, "probing_since": now})
        return overload.model_copy(update={"share": behavior.percentage})
    if behavior.percentage <= 100 - PROBE:  # it was edited
        return overload.model_copy(update={"share": behavior.percentage, "probing_since": None})
    if not is_over or overload.cleared_since is not None or any(isinstance(one.demand, NotYet) for one in measured):
        return overload
    over = overload.model_copy(update={"share": behavior.percentage, "probing_since": None, "stepped_at": now})
    # What was found is the better measure from now on, and only fewer requests are worth another probe.
    return _learned(over.model_copy(update={"rate": None}), facts, measured, now)


def _proportional(
    terms: Terms, measured: Collection[Projected], overload: Overload, in_force: Split | None, now: datetime
) -> Overload | None:
    """Send as much as brings the largest demand to its target, in steps; None when nothing is left to send.

    More leaves when the demand at the replicas is surely over the target, less when it surely is below by the
    tolerance, and have been for a quarter of `restoreAfter`: few requests make a noisy metric, and its highest values
    are what waits. It goes back slowly: all of it in `restoreAfter` at the least.
    """
    behavior = terms.behavior
    bound, stepped = min(behavior.percentage, _MOST_AWAY), overload.stepped_at
    share = min(overload.share, bound)
    overload = overload.model_copy(update={"share": share, "probing_since": None})
    demands = [one.demand for one in measured if isinstance(one.demand, Demand)]
    waits = any(isinstance(one.demand, NotYet) for one in measured)
    is_elsewhere = stepped is not None and in_force is not None and in_force.remote != share
    if demands and not waits:
        overload = overload.model_copy(update={"below_since": _below_since(terms, measured, overload, now)})
    if not demands or waits or is_elsewhere or (stepped is not None and now - stepped < behavior.step_interval):
        return overload
    largest = max(one.least for one in demands)
    is_over = any(one.signal.least > 1 + behavior.tolerance for one in measured)
    if stepped is None or (is_over and _share_for(largest, 1.0) > share):
        # The middle of what is neither over nor clear: what waits at the replicas has room to drain.
        wanted = min(max(_share_for(largest, 1 - behavior.tolerance / 2), 1), bound)
        if behavior.max_step is not None:
            seconds = (now - stepped).total_seconds() if stepped else 1.0
            wanted = min(wanted, share + max(math.floor(behavior.max_step * seconds), 1))
    elif overload.below_since and now - overload.below_since >= _lasts(terms):
        wanted = min(_share_for(max(one.most for one in demands), 1 - behavior.tolerance), share)
        wanted = max(wanted, share - _step_back(terms, measured))
    else:
        wanted = share
    if wanted == share and stepped is not None:
        return overload
    is_new = overload.series_since is None or now - overload.series_since >= _settles(terms)
    series = {"before_steps": share, "series_since": now} if is_new else {}
    return overload.model_copy(update={"share": wanted, "stepped_at": now, **series}) if wanted else None


def _below_since(terms: Terms, measured: Collection[Projected], overload: Overload, now: datetime) -> datetime | None:
    """Say since when every metric is below its target by the tolerance, with what is away now; None if one is not."""
    below = 1 - terms.behavior.tolerance / (2 if overload.below_since else 1)
    is_below = all(one.signal.state != "Unknown" and one.signal.most < below for one in measured)
    return (overload.below_since or now) if is_below else None


def _share_for(demand: float, wanted: float) -> int:
    """Say how many percent must leave for a demand to be so many times the target at the replicas."""
    return math.ceil(100 * (1 - wanted / demand)) if demand > wanted else 0


def _step_back(terms: Terms, measured: Iterable[Projected]) -> int:
    """Say how many percent may come back by one measurement, which tells of its window, and at least of one step."""
    behavior = terms.behavior
    told = behavior.step_interval + max((one.signal.window for one in measured), default=timedelta(0))
    if not behavior.restore_after:
        return 100
    return max(min(round(100 * (told / behavior.restore_after)), 100), 1)


def is_proportional(terms: Terms) -> bool:
    """Whether the share is computed rather than `percentage`."""
    return terms.behavior.mode == "Proportional"


def changes_at(terms: Terms, memory: Memory, now: datetime) -> datetime | None:
    """Say when what leaves may change with nothing else measured; None for not by itself."""
    behavior, overload = terms.behavior, memory.overload
    moments = [memory.breached_since + behavior.offload_after] if memory.breached_since else []
    if overload and overload.withdrawn_at:
        moments.append(overload.withdrawn_at + behavior.restore_after)
    elif overload:
        if overload.cleared_since:
            moments += [overload.cleared_since + times * behavior.restore_after for times in (1, DOUBTED)]
        if is_proportional(terms):
            moments += [overload.stepped_at + behavior.step_interval] if overload.stepped_at else []
            moments += [overload.below_since + _lasts(terms)] if overload.below_since else []
        elif behavior.percentage > 100 - PROBE and overload.cleared_since is None:
            began = overload.probing_since or overload.stepped_at or overload.since
            moments.append(began + behavior.restore_after)
    return min((at for at in moments if at > now), default=None)


def words_of(signal: Signal) -> str:
    """Write a signal with its numbers."""
    if signal.state == "Unknown":
        return f"{signal.name} is not known: {signal.message}"
    return f"{signal.name} is {signal.current} of {signal.target}"
