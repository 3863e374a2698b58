"""What `beamlit simulate` plays: history through the very same decision, as if time passed again.

A line of the history says what was measured at one moment. What leaves in the simulation lowers what is measured, as it
would have: each value is taken to be proportional to the requests that stay.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Literal

from controller.api.contract.health import RemoteHealth
from controller.api.resources.metrics import MetricByName, MetricSpec
from controller.api.schema.scalars import LONGEST_WINDOW
from controller.api.timing import REAL
from controller.decision import (
    Decision,
    Facts,
    Known,
    LocalFacts,
    Measurement,
    Memory,
    RemoteFacts,
    Sample,
    SentRequests,
    Unknown,
    decide,
)
from controller.decision.facts import WindowFrom
from controller.decision.signals import compare, compared, name_of
from controller.intent.intent import Intent
from controller.programs.simulation.history import Line, columns_of, read_history, read_model, text_of

Law = Literal["Threshold", "Proportional"]

MOST_DECISIONS = 1000
"""Between two lines, of which each may be a step: what is due after them is left out, and that is told."""
COUNTED = timedelta(seconds=REAL.reports.window)
"""Over how long the product counts requests."""
FOLLOWED = timedelta(seconds=REAL.statuses.split_followed_within)
"""How long the product waits for Envoys to follow a new split, before it counts any by that."""
REPORTED = timedelta(seconds=REAL.streams.loads_every)
"""Of how long one report of an Envoy is."""
_REMOTE = RemoteFacts("remote", RemoteHealth(healthy=True))


@dataclass(frozen=True, slots=True)
class Moment:
    """One decision of the simulation, and the largest demand then in multiples of its target, as far as it is known.

    `overflow` is how many percent of the requests leave because the replicas have no room for them, beside what the
    split sends; None where there is a limit and nothing tells. `left_out` is how much of the time until the next line
    is not simulated: another decision was due before it.
    """

    at: datetime
    decision: Decision
    demand: float | None
    overflow: float | None = 0.0
    left_out: timedelta = timedelta(0)

    @property
    def away(self) -> float:
        """How many percent leave, as far as it is known."""
        return self.decision.split.remote + (self.overflow or 0.0)


def simulated(manifest: Path, history: Path, law: Law | None, window: timedelta = timedelta(0)) -> tuple[Moment, ...]:
    """Simulate the model of a manifest over the lines of a CSV file; `window` is what its metrics are averages over,
    but for those that say so. Raises SimulationError.
    """
    intent = read_model(str(manifest), text_of(manifest))
    lines = read_history(str(history), text_of(history), *columns_of(intent))
    return tuple(replay(_with_law(intent, law), lines, window))


def replay(intent: Intent, lines: Sequence[Line], window: timedelta = timedelta(0)) -> Iterator[Moment]:
    """Decide at each line, and whenever in between the decision may change by itself."""
    past = _Past(intent, window)
    ends = [later.at for _, later in pairwise(lines)] + [lines[-1].at]
    for line, until in zip(lines, ends, strict=True):
        facts, demand, now = past.facts(line), _demand(intent, line), line.at
        for decisions_left in reversed(range(MOST_DECISIONS)):
            decision = past.decide(facts, now)
            due = min(decision.wake_at or until, until)
            overflow = _overflow(intent, line, decision.split.local / 100)
            yield Moment(now, decision, demand, overflow, timedelta(0) if decisions_left else until - due)
            if due == until:
                break
            now = due
            facts = past.later(facts, line, now)


class _Past:
    """What is remembered from line to line: the decision's own memory, what was counted, and how much stayed when."""

    def __init__(self, intent: Intent, window: timedelta) -> None:
        self._intent = intent
        self._window = window
        self._memory = Memory()
        self._stays: deque[tuple[datetime, float]] = deque()
        self._counted: deque[tuple[datetime, datetime, float]] = deque()
        self._before: datetime | None = None

    def decide(self, facts: Facts, now: datetime) -> Decision:
        """Decide at `now`, and follow that from then on."""
        decision, self._memory = decide(self._intent.terms, facts, self._memory, now)
        if not self._stays or self._stays[-1][1] != decision.split.local / 100:
            self._stays.append((now, decision.split.local / 100))
        return decision

    def facts(self, line: Line) -> Facts:
        """Say what would have been measured with the split that is in force in the simulation."""
        local = LocalFacts(ready=line.ready, total=max(line.ready, 1))
        return Facts(local, (_REMOTE,), signals=compared(self._samples(line), line.ready), traffic=self._traffic(line))

    def later(self, facts: Facts, line: Line, now: datetime) -> Facts:
        """Measure what a line says once more: it holds until the next one, unless another part stays since then."""
        if self._stays[-1][0] >= line.at:
            return facts
        return replace(facts, signals=compared(self._samples(replace(line, at=now)), line.ready))

    def _samples(self, line: Line) -> Iterator[tuple[MetricSpec, Sample]]:
        for metric in self._intent.metrics:
            value = line.values[name_of(metric)]
            if value is None:
                yield metric, Unknown("the history has no value")
                continue
            declared = metric.source.window if isinstance(metric.source, MetricByName) else None
            window = self._window if declared is None else declared
            there = value * Decimal(self._stayed(line, window) / _stayed(line))
            measured = replace(_measurement(metric, there), window=window, window_from=WindowFrom.SPEC)
            yield metric, Known(measured, line.at)

    def _stayed(self, line: Line, window: timedelta) -> float:
        """Say which share was local in a window, on average; what had no room was not there either."""
        while len(self._stays) > 1 and self._stays[1][0] <= line.at - LONGEST_WINDOW:
            self._stays.popleft()
        stays, since = self._stays[-1][1] if self._stays else 1.0, line.at - window
        if window and self._stays:
            spans, until, begins = 0.0, line.at, since
            for begun, share in reversed(self._stays):
                begins = max(begun, since)
                spans += share * (until - begins).total_seconds()
                until = begins
                if begun <= since:
                    break
            spans += (until - since).total_seconds()  # before the first line nothing had left
            stays = spans / window.total_seconds()
        return stays * _has_room(self._intent, line, stays)

    def _traffic(self, line: Line) -> SentRequests | Unknown:
        """Count requests as the product does: those of the last ten seconds, and since Envoys follow the split.

        It has them in reports, of which only those count that began after that. Of a line that began before it, as many
        count as its part of the time.
        """
        before, self._before = self._before, line.at
        if (line.local is None and line.remote is None) or before is None:
            return Unknown("the history has no number of requests")
        self._counted.append((before, line.at, (line.local or 0.0) + (line.remote or 0.0)))
        since = max(line.at - COUNTED, (self._memory.split_since or before) + FOLLOWED) + REPORTED
        while self._counted and self._counted[0][1] <= since:
            self._counted.popleft()
        total = seconds = 0.0
        for begun, until, number in self._counted:
            within = until - max(begun, since)
            total += number * (within / (until - begun))
            seconds += within.total_seconds()
        stays = self._stays[-1][1] if self._stays else 1.0
        local = round(total * stays * _has_room(self._intent, line, stays))
        return SentRequests(local, round(total) - local, seconds)


def _limit(intent: Intent) -> int | None:
    return intent.terms.behavior.max_requests_per_replica


def _flying(intent: Intent, line: Line) -> float | None:
    """Say how many requests would be in flight for each replica if all stayed; None: nothing tells."""
    if line.flying is None:
        return None
    is_whole = any(one.type == "Requests" and one.target.type == "Value" for one in intent.metrics)
    return line.flying / _stayed(line) / (max(line.ready, 1) if is_whole else 1)


def _has_room(intent: Intent, line: Line, stays: float) -> float:
    """Say for which part of what the split leaves to the replicas they have room; 1 where nothing tells."""
    limit, flying = _limit(intent), _flying(intent, line)
    return min(1.0, limit / (flying * stays)) if limit is not None and flying and stays else 1.0


def _overflow(intent: Intent, line: Line, stays: float) -> float | None:
    """Say how many percent of all requests leave for want of room."""
    if _limit(intent) is not None and _flying(intent, line) is None:
        return None
    return 100 * stays * (1 - _has_room(intent, line, stays))


def _measurement(metric: MetricSpec, value: Decimal) -> Measurement:
    """Take a value as its target is written: percent of what is requested, an average over replicas, or the whole."""
    match metric.target.type:
        case "Utilization":
            return Measurement(value, pods=1, requests=Decimal(100))
        case "AverageValue":
            return Measurement(value, pods=1)
    return Measurement(value)


def _stayed(line: Line) -> float:
    """Say which share of the requests was local when the line was measured; all if nobody counted, or hardly any."""
    total = (line.local or 0.0) + (line.remote or 0.0)
    return max((line.local or 0.0) / total, 0.05) if total and line.remote else 1.0


def _demand(intent: Intent, line: Line) -> float | None:
    known = [
        compare(metric, Known(_measurement(metric, value / Decimal(_stayed(line))), line.at), line.ready).least
        for metric in intent.metrics
        if (value := line.values[name_of(metric)]) is not None
    ]
    return max(known, default=None)


def _with_law(intent: Intent, law: Law | None) -> Intent:
    mode = law or ("Threshold" if intent.terms.behavior.mode == "Shadow" else intent.terms.behavior.mode)
    behavior = intent.terms.behavior.model_copy(update={"mode": mode})
    return replace(intent, terms=replace(intent.terms, behavior=behavior))
