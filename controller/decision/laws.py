"""What leaves for what was measured: when that begins, how much it is, and when it ends. Pure.

`follow` is asked at every evaluation, whatever other rule is in force, so that what it remembers is never older than
what was measured. It works on the demand that would come back (demand.py), so it does not oscillate by what it does
itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from operator import itemgetter

from controller.decision.decision import Memory, Overload
from controller.decision.demand import Baseline, Demand, InForce, NotYet, Projected, project, request_rate
from controller.decision.facts import Facts, SentRequests, Signal, in_words, listed
from controller.decision.proportional import DOUBTED, Look, measured_at, rested_at, settles
from controller.decision.proportional import moments as moments_of_steps
from controller.decision.waits import begins_at, ends_at, is_over, waits_since
from controller.intent.intent import Terms

# How many percent of the requests stay while that is the only way to find out what the demand is.
PROBE = 10

# What was measured so lately belongs to the requests that arrive now.
_JUST_NOW = timedelta(seconds=15)


def measure(facts: Facts, memory: Memory, settles: timedelta = timedelta(0)) -> tuple[Projected, ...]:
    """Say what demand is behind each signal; requests are in flight for so long after the split changed."""
    overload, in_force = memory.overload, None
    if memory.split and memory.split_since:
        in_force = InForce(memory.split, memory.split_since, stayed=memory.stayed or ())
        if overload and overload.series_since:
            before, settled_at = 100 - overload.before_steps, overload.series_since + settles
            in_force = replace(in_force, before=before, settled_at=settled_at)
    baseline = Baseline(overload.rate, overload.replicas, overload.ratios) if overload and overload.rate else None
    return tuple([Projected(one, project(one, facts, in_force, baseline)) for one in facts.signals])


def follow(terms: Terms, facts: Facts, memory: Memory, now: datetime) -> Memory:
    """Return the memory that has seen what was measured at `now`."""
    behavior, overload = terms.behavior, memory.overload
    if not facts.signals or not terms.enabled or not behavior.percentage:
        return memory.having(breached_since=None, unbreached_at=None, overload=None, returned=None)
    if tells_nothing_yet(facts.signals):
        return memory
    if overload is not None and overload.withdrawn_at is not None:
        is_known = any(one.state != "Unknown" for one in facts.signals)
        if not is_known or now - overload.withdrawn_at < behavior.restore_after:
            return memory
        overload = None
    if overload is None:
        return _begin(terms, facts, memory.having(overload=None), now)
    measured = measure(facts, memory, settles(terms))
    if is_proportional(terms):
        overload = overload.for_targets({one.key for one in facts.signals}, _demands(measured))
    # As the rules ask it: what is in flight from before a step makes a demand smaller, and not unknown.
    asked = measure(facts, memory) if overload.series_since else measured
    if all(one.is_unknown for one in asked):
        left: Overload | None = _unknown(terms, facts, overload, now)
    else:
        left = _clear_or_not(terms, facts, measured, overload, now)
    if left is not None and left.withdrawn_at is None:
        if is_proportional(terms):
            # A step is of one split: what stays is compared as it is measured, and not only the demand behind it.
            of_one = measure(facts, memory.having(stayed=None), settles(terms)) if memory.stayed else measured
            left = Look(terms, facts, left, now).step(of_one, memory.split)
        else:
            left = _threshold(terms, facts, measured, _learned(left, facts, measured, now), now)
    # Sentences have it for as long as nothing leaves: it is not of what is measured by then.
    returned = f"{now:%Y-%m-%dT%H:%M:%SZ}, measured then: {demands_of(measured)}" if left is None else None
    return memory.having(breached_since=None, unbreached_at=None, overload=left, returned=returned)


def tells_nothing_yet(signals: Collection[Signal]) -> bool:
    """Whether nothing is to be concluded, since some metric is awaited and none is at its target.

    So it is when a program has just started: what was so before it did is so until the first answers are there.
    """
    return any(one.pending for one in signals) and not any(one.state == "Breached" for one in signals)


def _begin(terms: Terms, facts: Facts, memory: Memory, now: datetime) -> Memory:
    """Begin when any metric has been at or over its target for `offloadAfter`."""
    breached = [one for one in facts.signals if one.state == "Breached"]
    if not breached:
        return memory.having(breached_since=None, unbreached_at=now) if memory.breached_since else memory
    at = max(one.at or now for one in breached)
    here = max(at, memory.split_since) if memory.split_since else at
    since = waits_since(memory.breached_since, _breach_begins(terms, memory), here, now)
    if since is None or not is_over(terms.behavior.offload_after, since, at, now):
        return memory.having(breached_since=since)
    overload: Overload | None = Overload(
        since=now,
        share=terms.behavior.percentage,
        cause=listed((words_of(one) for one in breached), ", "),
        rate=request_rate(facts),
        replicas=facts.local.ready,
        ratios=_ratios((one.key, one.least) for one in facts.signals if one.state != "Unknown" and not one.at_least),
    )
    if overload and is_proportional(terms):
        # What is measured now is at least what it would be at 100/0, wherever requests went until now.
        measured = [Projected(one, Demand(one.least, one.most)) for one in breached]
        overload = Look(terms, facts, overload.model_copy(update={"share": 0}), now).step(measured, memory.split)
    return memory.having(breached_since=None, unbreached_at=None, overload=overload, returned=None)


def _demands(measured: Iterable[Projected]) -> dict[str, float]:
    known = [one for one in measured if not one.signal.at_least]
    return _ratios((one.signal.key, one.demand.least) for one in known if isinstance(one.demand, Demand))


def _ratios(found: Iterable[tuple[str, float]]) -> dict[str, float]:
    """Return what signals are by their keys: of those that differ in their selectors alone, the largest."""
    return dict(sorted(found, key=itemgetter(1)))


def _breach_begins(terms: Terms, memory: Memory) -> datetime | None:
    """Say when a metric at its target is waited for again, after it was not for a while; None for at once.

    That rests no longer than it must: an overload is worse than a write.
    """
    broken_off = memory.unbreached_at
    return begins_at(terms.behavior.offload_after, broken_off, broken_off) if broken_off else None


def _unknown(terms: Terms, facts: Facts, overload: Overload, now: datetime) -> Overload:
    """Return what leaves while nobody knows the demand.

    Without a replica nothing is local, whatever is known, and most metrics are of replicas. When they are back in a few
    seconds, as many requests are too many for them as before.
    """
    withdrawn_at = now if terms.behavior.on_unknown == "Local" and facts.local.ready else None
    return overload.model_copy(update={"cleared_since": None, "withdrawn_at": withdrawn_at})


def _clear_or_not(
    terms: Terms, facts: Facts, measured: Collection[Projected], overload: Overload, now: datetime
) -> Overload | None:
    """Say since when all is clear; None when that has been so for long enough, and everything comes back.

    It is clear once below the target by the tolerance, and no longer when half of that is used up.
    """
    waits = any(isinstance(one.demand, NotYet) for one in measured)
    known = [one for one in measured if isinstance(one.demand, Demand)] if waits else measured
    if not _is_clear(terms, known, overload):
        return _broken_off(overload, now)
    if waits:
        return overload  # what is measured next tells
    at = measured_at(facts, now)
    here = max(one for one in (at, overload.since, overload.probing_since, overload.stepped_at) if one)
    since = waits_since(overload.cleared_since, rested_at(terms, overload), here, now)
    if since is None:
        return overload
    times = DOUBTED if is_doubted(terms, facts, measured, overload, now) else 1
    if is_over(times * terms.behavior.restore_after, since, at, now):
        return None
    return overload.model_copy(update={"cleared_since": since})


def _is_clear(terms: Terms, measured: Iterable[Projected], overload: Overload) -> bool:
    below = 1 - terms.behavior.tolerance / (2 if overload.cleared_since else 1)
    return all(one.is_clear(below) for one in measured)


def _broken_off(overload: Overload, now: datetime) -> Overload:
    """Return what leaves once the demand is not clear, or no longer."""
    return (
        overload.model_copy(update={"cleared_since": None, "broken_off_at": now})
        if overload.cleared_since
        else overload
    )


def is_doubted(terms: Terms, facts: Facts, measured: Iterable[Projected], overload: Overload, now: datetime) -> bool:
    """Whether signals are clear and the number of requests is not, so that they return only after much longer.

    So it is too while they are not counted yet, as after a restart.
    """
    if is_proportional(terms):
        return Look(terms, facts, overload, now).least_away() > 0
    if overload.rate and isinstance(facts.traffic, SentRequests) and request_rate(facts) is None:
        return True
    below = 1 - terms.behavior.tolerance
    return any(one.is_doubted(below) for one in measured)


def _learned(overload: Overload, facts: Facts, measured: Iterable[Projected], now: datetime) -> Overload:
    """Take up the rate of requests if nothing told it before: of a breach of just now, or with a demand above a target.

    Requests that just returned were not counted for long enough when the target is reached again at once.
    """
    ratios, rate = _demands(measured), request_rate(facts)
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
    below = 1 - behavior.tolerance
    if overload.probing_since is None:
        helps = behavior.percentage > 100 - PROBE and not _is_clear(terms, measured, overload)
        is_time = now - began >= behavior.restore_after
        if is_time and helps and all(one.may_be_clear(below) for one in measured):
            return overload.model_copy(update={"share": 100 - PROBE, "probing_since": now})
        return overload.model_copy(update={"share": behavior.percentage})
    if behavior.percentage <= 100 - PROBE:  # it was edited
        return overload.model_copy(update={"share": behavior.percentage, "probing_since": None})
    tells = not any(isinstance(one.demand, NotYet) for one in measured)
    if all(one.is_unknown for one in measured) and behavior.on_unknown == "Hold":
        return overload
    is_found = tells and is_over(behavior.restore_after, began, measured_at(facts, now), now)
    if not is_found or _is_clear(terms, measured, overload):
        return overload
    over = overload.model_copy(update={"share": behavior.percentage, "probing_since": None, "stepped_at": now})
    # What was found is the better measure from now on, and only fewer requests are worth another probe.
    return _learned(over.model_copy(update={"rate": None}), facts, measured, now)


def is_proportional(terms: Terms) -> bool:
    """Whether the share is computed rather than `percentage`."""
    return terms.behavior.mode == "Proportional"


def changes_at(terms: Terms, memory: Memory, now: datetime) -> datetime | None:
    """Say when what leaves may change with nothing else measured; None for not by itself."""
    behavior, overload = terms.behavior, memory.overload
    moments = [*ends_at(behavior.offload_after, memory.breached_since)] if memory.breached_since else []
    moments += [at for at in (_breach_begins(terms, memory), overload and rested_at(terms, overload)) if at]
    if overload and overload.withdrawn_at:
        moments.append(overload.withdrawn_at + behavior.restore_after)
    elif overload:
        if overload.cleared_since:
            for times in (1, DOUBTED):
                moments += ends_at(times * behavior.restore_after, overload.cleared_since)
        if is_proportional(terms):
            moments += moments_of_steps(terms, overload)
        elif behavior.percentage > 100 - PROBE and overload.cleared_since is None:
            began = overload.probing_since or overload.stepped_at or overload.since
            moments += ends_at(behavior.restore_after, began)
    return min((at for at in moments if at > now), default=None)


def words_of(signal: Signal) -> str:
    """Write a signal with its numbers."""
    if signal.state == "Unknown":
        return f"{in_words(signal.name)} is not known: {signal.message}"
    return f"{in_words(signal.name)} is {'at least ' if signal.at_least else ''}{signal.current} of {signal.target}"


def demands_of(measured: Iterable[Projected]) -> str:
    """Write signals with their numbers, and with what they would be if every request stayed."""
    return listed(f"{words_of(one.signal)}{_with_all(one)}" for one in measured)


def _with_all(one: Projected) -> str:
    return f", with every request {one.in_words} of it" if isinstance(one.demand, Demand) else ""
