"""What leaves for what was measured: when that begins, how much it is, and when it ends. Pure.

`follow` is asked at every evaluation, whatever other rule is in force, so that what it remembers is never older than
what was measured. It works on the demand that would come back (demand.py), so it does not oscillate by what it does
itself.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from controller.decision.decision import Memory, Overload
from controller.decision.demand import Baseline, Demand, InForce, NotYet, Projection, project, request_rate
from controller.decision.facts import Facts, Signal, Unknown
from controller.intent.intent import Terms

# How many percent of the requests stay while that is the only way to find out what the demand is.
PROBE = 10

# The proportional law goes back more slowly than it goes away: at most so many percent with one measurement.
_LARGEST_STEP_BACK = 10


@dataclass(frozen=True, slots=True)
class Projected:
    """One signal and the demand behind it."""

    signal: Signal
    demand: Projection

    def is_clear(self, below: float) -> bool:
        """Whether the demand that would come back is below so many times the target."""
        return isinstance(self.demand, Demand) and self.demand.most < below


def measure(facts: Facts, memory: Memory) -> tuple[Projected, ...]:
    """Say what demand is behind each signal."""
    in_force = InForce(memory.split, memory.split_since) if memory.split and memory.split_since else None
    overload = memory.overload
    baseline = Baseline(overload.rate, overload.ratios) if overload and overload.rate else None
    return tuple(Projected(one, project(one, facts, in_force, baseline)) for one in facts.signals)


def follow(terms: Terms, facts: Facts, memory: Memory, now: datetime) -> Memory:
    """Return the memory that has seen what was measured at `now`."""
    behavior = terms.behavior
    if not facts.signals or not terms.enabled or not behavior.percentage:
        return memory.model_copy(update={"breached_since": None, "overload": None})
    if memory.overload and memory.overload.withdrawn and any(one.state != "Unknown" for one in facts.signals):
        memory = memory.model_copy(update={"overload": None})
    if memory.overload is None:
        return _begin(terms, facts, memory, now)
    measured = measure(facts, memory)
    overload: Overload | None = _clear_or_not(terms, measured, memory.overload, now)
    if overload is not None:
        law = _proportional if is_proportional(terms) else _threshold
        overload = law(terms, measured, overload, now)
    return memory.model_copy(update={"breached_since": None, "overload": overload})


def _begin(terms: Terms, facts: Facts, memory: Memory, now: datetime) -> Memory:
    """Begin when any metric has been at or over its target for `offloadAfter`."""
    breached = [one for one in facts.signals if one.state == "Breached"]
    if not breached:
        return memory.model_copy(update={"breached_since": None})
    since = min(memory.breached_since or now, now)
    if now - since < terms.behavior.offload_after:
        return memory.model_copy(update={"breached_since": since})
    overload = Overload(
        since=now,
        share=terms.behavior.percentage,
        cause=", ".join(words_of(one) for one in breached),
        rate=request_rate(facts),
        ratios={one.key: one.least for one in facts.signals if one.state != "Unknown"},
    )
    begun = _proportional(terms, measure(facts, memory), overload, now) if is_proportional(terms) else overload
    return memory.model_copy(update={"breached_since": None, "overload": begun})


def _clear_or_not(terms: Terms, measured: Iterable[Projected], overload: Overload, now: datetime) -> Overload | None:
    """Say since when all is clear; None when that has been so for `restoreAfter`, and everything comes back."""
    behavior = terms.behavior
    if all(isinstance(one.demand, Unknown) and one.signal.state == "Unknown" for one in measured):
        withdrawn = behavior.on_unknown == "Local"
        return overload.model_copy(update={"cleared_since": None, "withdrawn": withdrawn})
    if any(isinstance(one.demand, NotYet) for one in measured):
        return overload  # what is measured next tells
    if not all(one.is_clear(1 - behavior.tolerance) for one in measured):
        return overload.model_copy(update={"cleared_since": None})
    since = min(overload.cleared_since or now, now)
    if now - since >= behavior.restore_after:
        return None
    return overload.model_copy(update={"cleared_since": since})


def _threshold(terms: Terms, measured: Iterable[Projected], overload: Overload, now: datetime) -> Overload:
    """Send `percentage`; where nothing stays and nothing tells the demand, let a few requests stay to find it out.

    Each lasts for `restoreAfter`, so that no input makes the split change more often.
    """
    behavior = terms.behavior
    began = overload.probing_since or overload.stepped_at or overload.since
    is_over = now - began >= behavior.restore_after
    if overload.probing_since is None:
        if is_over and behavior.percentage > 100 - PROBE and any(_needs_probe(one) for one in measured):
            return overload.model_copy(update={"share": 100 - PROBE, "probing_since": now})
        return overload.model_copy(update={"share": behavior.percentage})
    if is_over and overload.cleared_since is None and not any(isinstance(one.demand, NotYet) for one in measured):
        return overload.model_copy(update={"share": behavior.percentage, "probing_since": None, "stepped_at": now})
    return overload


def _needs_probe(one: Projected) -> bool:
    return isinstance(one.demand, Unknown) and one.signal.state != "Unknown"


def _proportional(terms: Terms, measured: Iterable[Projected], overload: Overload, now: datetime) -> Overload | None:
    """Send as much as brings the largest demand to its target, in steps; None when nothing is left to send."""
    behavior = terms.behavior
    stepped = overload.stepped_at
    demands = [one.demand for one in measured if isinstance(one.demand, Demand)]
    waits = any(isinstance(one.demand, NotYet) for one in measured)
    if not demands or waits or (stepped is not None and timedelta(0) <= now - stepped < behavior.step_interval):
        return overload
    share = overload.share if stepped else 0
    largest = max(one.least for one in demands)
    wanted = min(math.ceil(100 * (1 - 1 / largest)) if largest > 1 else 0, behavior.percentage)
    if wanted > share and behavior.max_step is not None:
        seconds = (now - stepped).total_seconds() if stepped else 1.0
        wanted = min(wanted, share + max(math.floor(behavior.max_step * seconds), 1))
    if wanted < share:
        wanted = max(wanted, share - _LARGEST_STEP_BACK)
    return overload.model_copy(update={"share": wanted, "stepped_at": now}) if wanted else None


def is_proportional(terms: Terms) -> bool:
    """Whether the share is computed rather than `percentage`."""
    return terms.behavior.mode == "Proportional"


def changes_at(terms: Terms, memory: Memory, now: datetime) -> datetime | None:
    """Say when what leaves may change with nothing else measured; None for not by itself."""
    behavior, overload = terms.behavior, memory.overload
    moments = [memory.breached_since + behavior.offload_after] if memory.breached_since else []
    if overload and overload.cleared_since:
        moments.append(overload.cleared_since + behavior.restore_after)
    if overload and not is_proportional(terms) and behavior.percentage > 100 - PROBE:
        began = overload.probing_since or overload.stepped_at or overload.since
        moments.append(began + behavior.restore_after)
    if overload and is_proportional(terms) and overload.stepped_at:
        moments.append(overload.stepped_at + behavior.step_interval)
    return min((at for at in moments if at > now), default=None)


def words_of(signal: Signal) -> str:
    """Write a signal with its numbers."""
    if signal.state == "Unknown":
        return f"{signal.name} is not known: {signal.message}"
    return f"{signal.name} is {signal.current} of {signal.target}"
