"""What `beamlit simulate` does: history through the very same decision, as if time passed again.

A line of the history says what was measured at one moment. What leaves in the simulation lowers what is measured, as it
would have: each value is taken to be proportional to the requests that stay.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

from controller.api.contract.health import RemoteHealth
from controller.api.registry import MODEL_DEPLOYMENT, VALIDATION
from controller.api.resources.metrics import MetricSpec
from controller.api.resources.model import ModelDeployment
from controller.api.schema.values import parse
from controller.decision import (
    Decision,
    Facts,
    Known,
    LocalFacts,
    Measurement,
    Memory,
    RemoteFacts,
    SentRequests,
    Unknown,
    decide,
)
from controller.decision.signals import compare, name_of
from controller.intent.intent import Intent, intent_of_model
from controller.store.directory.checking import check_file

Law = Literal["Threshold", "Proportional"]

_OPTIONAL = ("local_requests", "remote_requests", "ready")
_LARGEST = 64 * 1024 * 1024
_MOST_WAKES = 1000
"""Between two lines, of which each may be a step: more are left out."""
_REMOTE = RemoteFacts("remote", RemoteHealth(healthy=True))


class SimulationError(Exception):
    """A file that cannot be used; the message names it and the line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the history: when, the value of each metric (None if unknown), and what was counted since the last.

    `ready` is how many replicas were ready.
    """

    at: datetime
    values: Mapping[str, Decimal | None]
    local: float | None = None
    remote: float | None = None
    ready: int = 1


@dataclass(frozen=True, slots=True)
class Moment:
    """One decision of the simulation, and the largest demand then in multiples of its target, as far as it is known."""

    at: datetime
    decision: Decision
    demand: float | None


def simulated(manifest: Path, history: Path, law: Law | None) -> tuple[Moment, ...]:
    """Simulate the model of a manifest over the lines of a CSV file. Raises SimulationError."""
    intent = read_model(str(manifest), _text(manifest))
    lines = read_history(str(history), _text(history), [name_of(one) for one in intent.metrics])
    return tuple(replay(_with_law(intent, law), lines))


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
    if not intent.metrics:
        raise SimulationError(f"{file}:{models[0].line}: spec.offloadingConfig.metrics: has no metric to simulate")
    return intent


def read_history(file: str, text: str, metrics: Sequence[str]) -> tuple[Line, ...]:
    """Read a CSV file with `time`, a column for each metric, and optional ones. Raises SimulationError."""
    reader = csv.reader(text.splitlines())
    titles = [title.strip() for title in next(reader, [])]
    for missing in [name for name in ("time", *metrics) if name not in titles]:
        raise SimulationError(f"{file}:1: has no column {missing!r}")
    for title in titles:
        if title not in ("time", *metrics, *_OPTIONAL) or titles.count(title) > 1:
            known = ", ".join(("time", *metrics, *_OPTIONAL))
            raise SimulationError(f"{file}:1: the column {title!r} is unknown or there twice; there may be {known}")
    lines: list[Line] = []
    for row in reader:
        where = f"{file}:{reader.line_num}"
        if not any(map(str.strip, row)):
            continue
        if len(row) != len(titles):
            raise SimulationError(f"{where}: has {len(row)} values, and there are {len(titles)} columns")
        line = _line(where, dict(zip(titles, map(str.strip, row), strict=True)), metrics)
        if lines and line.at <= lines[-1].at:
            raise SimulationError(f"{where}: time: must be later than in the line before")
        lines.append(line)
    if not lines:
        raise SimulationError(f"{file}:1: has no lines below its titles")
    return tuple(lines)


def _line(where: str, row: Mapping[str, str], metrics: Sequence[str]) -> Line:
    def number(name: str) -> Decimal | None:
        text = row.get(name, "")
        try:
            found = Decimal(text) if text else None
        except ArithmeticError:
            found = Decimal("nan")
        if found is not None and not (found.is_finite() and 0 <= found < Decimal("1e30")):
            raise SimulationError(f"{where}: {name}: must be a number from 0 on, or empty if unknown, is {text[:40]!r}")
        return found

    local, remote, ready = (number(name) for name in _OPTIONAL)
    return Line(
        at=_moment(where, row["time"]),
        values={name: number(name) for name in metrics},
        local=None if local is None else float(local),
        remote=None if remote is None else float(remote),
        ready=1 if ready is None else min(int(ready), 1_000_000),
    )


def _moment(where: str, text: str) -> datetime:
    try:
        try:
            return datetime.fromtimestamp(float(text), UTC)
        except ValueError:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                raise
            return moment.astimezone(UTC)
    except (ValueError, OverflowError, OSError):
        words = "must be seconds, or a time such as 2026-01-01T00:00:00Z"
        raise SimulationError(f"{where}: time: {words}, is {text[:40]!r}") from None


def replay(intent: Intent, lines: Sequence[Line]) -> Iterator[Moment]:
    """Decide at each line, and whenever in between the decision may change by itself."""
    memory = Memory()
    ends = [later.at for _, later in pairwise(lines)] + [lines[-1].at]
    before = lines[0].at
    for line, until in zip(lines, ends, strict=True):
        now, wakes = line.at, 0
        facts = _facts(intent, line, memory, (line.at - before).total_seconds())
        while True:
            decision, memory = decide(intent.terms, facts, memory, now)
            yield Moment(now, decision, _demand(intent, line))
            wakes += 1
            if decision.wake_at is None or decision.wake_at >= until or wakes > _MOST_WAKES:
                break
            now = decision.wake_at
        before = line.at


def _facts(intent: Intent, line: Line, memory: Memory, seconds: float) -> Facts:
    """Say what would have been measured with the split that is in force in the simulation."""
    stays = (memory.split.local if memory.split else 100) / 100
    signals = []
    for metric in intent.metrics:
        value = line.values[name_of(metric)]
        if value is None:
            signals.append(compare(metric, Unknown("the history has no value"), 1))
        else:
            there = value * Decimal(stays / _stayed(line))
            signals.append(compare(metric, Known(_measurement(metric, there), line.at), line.ready))
    total = None if line.local is None and line.remote is None else (line.local or 0.0) + (line.remote or 0.0)
    traffic: SentRequests | Unknown = Unknown("the history has no number of requests")
    if total is not None and seconds:
        traffic = SentRequests(round(total * stays), round(total) - round(total * stays), seconds)
    local = LocalFacts(ready=line.ready, total=max(line.ready, 1))
    return Facts(local, (_REMOTE,), signals=tuple(signals), traffic=traffic)


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


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > _LARGEST:
            raise SimulationError(f"{path}: must be at most {_LARGEST} bytes")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SimulationError(f"{path}:{line}: is not UTF-8 text") from None
    except OSError as error:
        raise SimulationError(f"{path}: cannot be read: {error.strerror}") from None


def changes(moments: Sequence[Moment]) -> tuple[Moment, ...]:
    """Return the first moment, and those whose split or reason is another than before."""
    kept = [moments[0]]
    for one in moments[1:]:
        if (one.decision.split, one.decision.reason) != (kept[-1].decision.split, kept[-1].decision.reason):
            kept.append(one)
    return tuple(kept)


def summary(moments: Sequence[Moment]) -> Mapping[str, Any]:
    """Sum up a simulation: how often the split changed, and how long and how much left."""
    spans = [(a.decision.split.remote, (b.at - a.at).total_seconds()) for a, b in pairwise(moments)]
    seconds = sum(span for _, span in spans)
    return {
        "seconds": seconds,
        "splitChanges": sum(a.decision.split != b.decision.split for a, b in pairwise(moments)),
        "secondsAway": sum(span for share, span in spans if share),
        "averageAwayPercent": round(sum(share * span for share, span in spans) / seconds, 2) if seconds else 0.0,
    }


def as_object(moments: Sequence[Moment]) -> Mapping[str, Any]:
    """Return a simulation as JSON: what changed, and the summary."""
    told = [
        {
            "at": _clock(one.at),
            "split": str(one.decision.split),
            "reason": one.decision.reason,
            "message": one.decision.message,
            "demand": one.demand,
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
            f"{_clock(one.at):<22}{one.decision.split!s:<9}{one.decision.reason:<16}{demand:<9}{one.decision.message}"
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
        away = max(one.decision.split.remote for one in within)
        told.append(f"{_clock(within[0].at if whole else begin):<22}{bar:<50}{'*' * round(away / 5):<21}{away} %")
    return "\n".join((*told, "", _sentence(moments)))


def _bar(demand: float | None, most: float, width: int, target: int) -> str:
    if demand is None:
        return "?"
    filled = min(math.ceil(demand / most * width), width)
    cells = ["#" if cell < filled else " " for cell in range(width)]
    cells[min(target, width) - 1] = "|"
    return "".join(cells) + (">" if demand > most else "")


def _sentence(moments: Sequence[Moment]) -> str:
    found = summary(moments)
    return (
        f"In {timedelta(seconds=found['seconds'])}: {found['splitChanges']} changes of the split, requests away for "
        f"{timedelta(seconds=found['secondsAway'])}, {found['averageAwayPercent']} % of the time's requests on average."
    )


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
