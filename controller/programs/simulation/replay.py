"""What `beamlit simulate` does: history through the very same decision, as if time passed again.

A line of the history says what was measured at one moment. What leaves in the simulation lowers what is measured, as it
would have: each value is taken to be proportional to the requests that stay.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import Split
from controller.api.registry import MODEL_DEPLOYMENT, VALIDATION
from controller.api.resources.metrics import MetricByName, MetricSpec
from controller.api.resources.model import ModelDeployment
from controller.api.schema.scalars import LONGEST_WINDOW
from controller.api.schema.values import parse
from controller.api.timing import REAL
from controller.decision import (
    Decision,
    Facts,
    Known,
    LocalFacts,
    Measurement,
    Memory,
    RemoteFacts,
    SentRequests,
    Signal,
    Unknown,
    decide,
)
from controller.decision.facts import WindowFrom
from controller.decision.signals import compare, name_of
from controller.intent.intent import Intent, intent_of_model
from controller.programs.history import IN_FLIGHT, OPTIONAL, Line, SimulationError, read_history, text_of
from controller.store.directory.checking import check_file

Law = Literal["Threshold", "Proportional"]

MOST_DECISIONS = 1000
"""Between two lines, of which each may be a step: what is due after them is left out, and that is told."""
COUNTED = timedelta(seconds=REAL.reports.window)
"""Over how long the product counts requests."""
_ALL_LOCAL = Split.away(0)
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


def read_model(file: str, text: str) -> Intent:
    """Read the one ModelDeployment of a manifest. Raises SimulationError."""
    content = check_file(file, text, VALIDATION)
    if content.problems:
        first = content.problems[0]
        raise SimulationError(f"{file}:{first.line}: {first.field}: {first.message}")
    models = [one for one in content.manifests if one.ref.kind == MODEL_DEPLOYMENT.kind]
    if len(models) != 1:
        raise SimulationError(f"{file}:1: must have one ModelDeployment, has {len(models)}")
    intent = intent_of_model(parse(ModelDeployment, models[0].raw), 1)
    where = f"{file}:{models[0].line}: spec.offloadingConfig.metrics"
    if not intent.metrics and _limit(intent) is None:
        raise SimulationError(f"{where}: has no metric to simulate, and there is no maxRequestsPerReplica")
    names = [name_of(one) for one in intent.metrics]
    if twice := next((one for one in names if names.count(one) > 1), None):
        raise SimulationError(
            f"{where}: has {twice!r} twice, and a history has one column for it: simulate one of them"
        )
    return intent


def columns_of(intent: Intent) -> tuple[Sequence[str], Sequence[str]]:
    """Return the titles that a history of a model must have, and those that it may have, beside the time."""
    metrics = [name_of(one) for one in intent.metrics] or [IN_FLIGHT]
    may_overflow = _limit(intent) is not None and IN_FLIGHT not in metrics
    return metrics, (*OPTIONAL, IN_FLIGHT) if may_overflow else OPTIONAL


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
        self._counted: deque[tuple[datetime, float, float]] = deque()
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
        return Facts(local, (_REMOTE,), signals=self._signals(line), traffic=self._traffic(line))

    def later(self, facts: Facts, line: Line, now: datetime) -> Facts:
        """Measure what a line says once more: it holds until the next one, unless another part stays since then."""
        is_as_before = self._stays[-1][0] < line.at
        return replace(facts, signals=self._signals(replace(line, at=now))) if is_as_before else facts

    def _signals(self, line: Line) -> tuple[Signal, ...]:
        signals = []
        for metric in self._intent.metrics:
            value = line.values[name_of(metric)]
            if value is None:
                signals.append(compare(metric, Unknown("the history has no value"), 1))
                continue
            declared = metric.source.window if isinstance(metric.source, MetricByName) else None
            window = self._window if declared is None else declared
            there = value * Decimal(self._stayed(line, window) / _stayed(line))
            measured = replace(_measurement(metric, there), window=window, window_from=WindowFrom.SPEC)
            signals.append(compare(metric, Known(measured, line.at), line.ready))
        return tuple(signals)

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
        """Count requests as the product does: those of the last ten seconds, since the split changed.

        A line that is of longer than that is counted as a whole, for it says no more.
        """
        before, self._before = self._before, line.at
        if (line.local is None and line.remote is None) or before is None:
            return Unknown("the history has no number of requests")
        self._counted.append((before, (line.local or 0.0) + (line.remote or 0.0), (line.at - before).total_seconds()))
        since = max(line.at - COUNTED, self._memory.split_since or line.at - COUNTED)
        while len(self._counted) > 1 and self._counted[0][0] < since:
            self._counted.popleft()
        total = sum(one for _, one, _ in self._counted)
        stays = self._stays[-1][1] if self._stays else 1.0
        local = round(total * stays * _has_room(self._intent, line, stays))
        return SentRequests(local, round(total) - local, sum(seconds for *_, seconds in self._counted))


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


def changes(moments: Sequence[Moment]) -> tuple[Moment, ...]:
    """Return the first moment, and those whose split or reason is another than before, or that begin or end to leave
    for want of room.
    """

    def told(one: Moment) -> tuple[Split, str, bool]:
        return one.decision.split, one.decision.reason, bool(one.overflow)

    return (moments[0], *(later for one, later in pairwise(moments) if told(one) != told(later)))


def summary(moments: Sequence[Moment]) -> Mapping[str, Any]:
    """Sum up a simulation: how often the split changed, how long and how much left, and how long nothing tells."""
    spans = [(a, (b.at - a.at).total_seconds()) for a, b in pairwise(moments)]
    seconds = sum(span for _, span in spans)
    splits = [_ALL_LOCAL, *(one.decision.split for one in moments)]
    found = {
        "seconds": seconds,
        "splitChanges": sum(a != b for a, b in pairwise(splits)),
        "secondsAway": sum(span for one, span in spans if one.away),
        "averageAwayPercent": round(sum(one.away * span for one, span in spans) / seconds, 2) if seconds else 0.0,
        "secondsLeftOut": sum(one.left_out.total_seconds() for one in moments),
    }
    if any(one.overflow is None for one in moments):
        return {**found, "averageOverflowPercent": None}
    overflow = sum((one.overflow or 0.0) * span for one, span in spans)
    return {**found, "averageOverflowPercent": round(overflow / seconds, 2) if seconds else 0.0}


def as_object(moments: Sequence[Moment]) -> Mapping[str, Any]:
    """Return a simulation as JSON: what changed, and the summary."""
    told = [
        {
            "at": _clock(one.at),
            "split": str(one.decision.split),
            "reason": one.decision.reason,
            "message": one.decision.message,
            "demand": one.demand,
            "overflow": None if one.overflow is None else round(one.overflow, 2),
        }
        for one in changes(moments)
    ]
    return {"changes": told, "summary": summary(moments)}


def as_table(moments: Sequence[Moment]) -> str:
    """Return what changed for people."""
    rows = [f"{'AT':<22}{'SPLIT':<9}{'REASON':<16}{'DEMAND':<9}BECAUSE"]
    for one in changes(moments):
        demand = "-" if one.demand is None else f"{one.demand:.0%}"
        rows.append(
            f"{_clock(one.at):<22}{one.decision.split!s:<9}{one.decision.reason:<16}{demand:<9}"
            f"{one.decision.message}{_without_room(one)}"
        )
    return "\n".join((*rows, "", _sentence(moments)))


def as_plot(moments: Sequence[Moment], rows: int = 40, width: int = 40) -> str:
    """Plot the demand and what leaves, a row for each part of the time."""
    begin, whole = moments[0].at, (moments[-1].at - moments[0].at) / rows
    most = max([2.0, *(min(one.demand, 10.0) for one in moments if one.demand is not None)])
    target = round(width / most)
    told = [f"{'':<22}demand ('|' is the target, '>' beyond the edge){'':<3}away"]
    last = moments[0]
    for row in range(rows if whole else 1):
        until = begin + (row + 1) * whole
        within = [one for one in moments if begin + row * whole <= one.at < until or (not whole)] or [last]
        last = within[-1]
        demand = max((one.demand for one in within if one.demand is not None), default=None)
        bar = _bar(demand, most, width, target)
        away = max(one.away for one in within)
        told.append(f"{_clock(within[0].at if whole else begin):<22}{bar:<50}{'*' * round(away / 5):<21}{away:.0f} %")
    return "\n".join((*told, "", _sentence(moments)))


def _bar(demand: float | None, most: float, width: int, target: int) -> str:
    if demand is None:
        return "?"
    filled = min(math.ceil(demand / most * width), width)
    cells = ["#" if cell < filled else " " for cell in range(width)]
    cells[min(target, width) - 1] = "|"
    return "".join(cells) + (">" if demand > most else "")


def _without_room(one: Moment) -> str:
    return f"; {one.overflow:.0f} % of all requests leave for want of room" if one.overflow else ""


def _sentence(moments: Sequence[Moment]) -> str:
    found = summary(moments)
    overflow = found["averageOverflowPercent"]
    told = f", {overflow} % for want of room (maxRequestsPerReplica)" if overflow else ""
    if overflow is None:
        told = (
            f". What leaves by maxRequestsPerReplica is not in it where the column {IN_FLIGHT!r} is not: requests in "
            "flight for each replica"
        )
    left_out = (
        f"\nNot simulated: {timedelta(seconds=found['secondsLeftOut'])} of it. Between two lines {MOST_DECISIONS} "
        "decisions are made at most; then the last split stays until the next line. Give lines that are closer."
        if found["secondsLeftOut"]
        else ""
    )
    return (
        f"In {timedelta(seconds=found['seconds'])}: {found['splitChanges']} changes of the split, requests away for "
        f"{timedelta(seconds=found['secondsAway'])}, {found['averageAwayPercent']} % of the time's requests on "
        f"average{told}.{left_out}"
    )


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
