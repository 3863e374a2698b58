"""The metrics of a model as its status shows them, and whether they can be read at all: `SignalsAvailable`. Pure.

The condition follows from `status.signals` alone, so the two cannot disagree, and a restart continues where it was. It
is slow on purpose (docs/adr/0074): a metric that misses a sample, or pods that have just started, are no fault.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from controller.api.contract.status import Condition, ModelDeploymentStatus, SignalStatus
from controller.api.schema.scalars import format_duration
from controller.decision import Cause, Signal
from controller.decision.facts import in_words, listed

AVAILABLE = "SignalsAvailable"
"""The condition that says whether the metrics of a model can be read; one without metrics has none."""

MEASURED = "Measured"
"""Why they are available."""

PENDING = "Pending"
"""Why a metric is unknown that is asked for the first time: that is no news."""

LASTS = timedelta(minutes=1)
"""For how long a metric is unknown, with a replica that is ready, before that is told.

So it is told once a minute at the most. metrics-server has its first sample of a pod within it, with its usual
resolution of 15 seconds.
"""


@dataclass(frozen=True, slots=True)
class Availability:
    """Whether every metric can be read, why in one word, and in a sentence."""

    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str


def signal_statuses(
    signals: Iterable[Signal], before: Iterable[SignalStatus], now: datetime
) -> tuple[SignalStatus, ...]:
    """Show the metrics; `before` says since when each is as it is.

    Of several with one name and one target, which differ in their selectors, each has what was in its place.
    """
    known: defaultdict[tuple[str, str], deque[SignalStatus]] = defaultdict(deque)
    for one in before:
        known[one.name, one.target].append(one)
    alike = ((one, known[one.name, one.target]) for one in signals)
    return tuple(_signal_status(one, found.popleft() if found else None, now) for one, found in alike)


def _signal_status(signal: Signal, before: SignalStatus | None, now: datetime) -> SignalStatus:
    if signal.pending and before:
        return before  # nothing newer is known of it
    as_before = before is not None and before.state == signal.state
    return SignalStatus(
        name=signal.name,
        current=signal.current,
        target=signal.target,
        state=signal.state,
        reason=_reason(signal),
        message=signal.message,
        # A clock that was set back makes nobody wait for it.
        since=min(before.since, now) if before and as_before and before.since else now,
        at=None if signal.current is None else signal.at,
        # metrics-server has another one with each sample, to the nanosecond.
        window=format_duration(timedelta(seconds=math.ceil(signal.window.total_seconds()))) if signal.window else None,
        window_from=str(signal.window_from) if signal.window else None,
    )


def _reason(signal: Signal) -> str | None:
    if signal.state != "Unknown":
        return None
    return PENDING if signal.pending else str(signal.cause or Cause.NOT_MEASURED)


def availability(
    signals: Iterable[SignalStatus], before: Condition | None, ready_since: datetime | None, now: datetime
) -> Availability | None:
    """Say whether every metric can be read; None where there is none.

    `before` is what was said last, `ready_since` since when a replica is ready, not after `now`: while none is, time
    does not count, for nothing of them can be measured. What was available stays so until a metric is unknown for long
    enough, and what was not is again as soon as all are known.
    """
    signals = tuple(signals)
    if not signals:
        return None
    unknown = _unknown(signals)
    if not unknown:
        return Availability("True", MEASURED, "every metric can be read")
    first, words = unknown[0], listed(f"{in_words(one.name)} cannot be read: {one.message}" for one in unknown)
    due, was = _due_at(signals, ready_since), before.status if before else "Unknown"
    if was == "False" or (due is not None and now >= due):
        return Availability("False", first.reason or Cause.NOT_MEASURED, words)
    if was == "True":
        until = min(one.since or now for one in unknown)
        return Availability("True", MEASURED, f"every metric could be read until {until:%Y-%m-%dT%H:%M:%SZ}: {words}")
    return Availability("Unknown", first.reason or Cause.NOT_MEASURED, words)


def ready_since(status: ModelDeploymentStatus) -> datetime | None:
    """Say since when a status says that a replica is ready; None if it does not."""
    found = status.condition("LocalHealthy")
    return found.last_transition_time if found and found.status == "True" else None


def turns_at(status: ModelDeploymentStatus) -> datetime | None:
    """Say when `SignalsAvailable` turns False with nothing else changing; None for not by itself."""
    said = status.condition(AVAILABLE)
    is_told = said is None or said.status == "False"
    return None if is_told else _due_at(status.signals or (), ready_since(status))


def _unknown(signals: Iterable[SignalStatus]) -> tuple[SignalStatus, ...]:
    """Find those that are not known, those first that are not for a reason of their own."""
    found = (one for one in signals if one.state == "Unknown")
    return tuple(sorted(found, key=lambda one: one.reason == PENDING))


def _due_at(signals: Iterable[SignalStatus], ready: datetime | None) -> datetime | None:
    """Say when a metric will have been unknown for long enough."""
    if ready is None:
        return None
    since = [one.since for one in _unknown(signals) if one.since and one.reason != PENDING]
    return max(min(since), ready) + LASTS if since else None
