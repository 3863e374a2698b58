"""What `beamlit simulate` reads: a model, and a history, of which a line says what was measured at one moment."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Protocol

from controller.api.registry import MODEL_DEPLOYMENT, VALIDATION
from controller.api.resources.model import ModelDeployment
from controller.api.schema.values import parse
from controller.decision.signals import name_of
from controller.intent.intent import Intent, intent_of_model
from controller.store.directory.checking import check_file

OPTIONAL = ("local_requests", "remote_requests", "ready")
"""Columns that every history may have."""
IN_FLIGHT = "Requests"
"""The column of requests in flight for each replica: that of the metric, or of what a limit is compared with."""

_LARGEST = 64 * 1024 * 1024
# What is waited for is added to a moment, and a year at most: it stays in the calendar.
_FIRST, _LAST = 1970, 9000


class SimulationError(Exception):
    """A file that cannot be used; the message names it and the line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the history: when, the value of each metric (None if unknown), and what was counted since the last.

    `ready` is how many replicas were ready, `flying` how many requests were in flight for each of them, which is None
    where that is not known.
    """

    at: datetime
    values: Mapping[str, Decimal | None]
    local: float | None = None
    remote: float | None = None
    ready: int = 1
    flying: float | None = None


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
    if not intent.metrics and intent.terms.behavior.max_requests_per_replica is None:
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
    may_overflow = intent.terms.behavior.max_requests_per_replica is not None and IN_FLIGHT not in metrics
    return metrics, (*OPTIONAL, IN_FLIGHT) if may_overflow else OPTIONAL


class _Reader(Protocol):
    """What the standard library reads CSV with."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...
    def __next__(self) -> list[str]: ...


def read_history(file: str, text: str, metrics: Sequence[str], optional: Sequence[str] = OPTIONAL) -> tuple[Line, ...]:
    """Read a CSV file with `time`, a column for each metric, and optional ones. Raises SimulationError."""
    reader = csv.reader(text.splitlines())
    try:
        return _read(file, reader, metrics, optional)
    except csv.Error as error:
        raise SimulationError(f"{file}:{reader.line_num}: cannot be read: {error}") from None


def _read(file: str, reader: _Reader, metrics: Sequence[str], optional: Sequence[str]) -> tuple[Line, ...]:
    titles = [title.strip() for title in next(reader, [])]
    for missing in [name for name in ("time", *metrics) if name not in titles]:
        raise SimulationError(f"{file}:1: has no column {missing!r}")
    for title in titles:
        if title not in ("time", *metrics, *optional) or titles.count(title) > 1:
            known = ", ".join(("time", *metrics, *optional))
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

    local, remote, ready = (number(name) for name in OPTIONAL)
    if ready is not None and ready != int(ready):
        raise SimulationError(f"{where}: ready: must be a whole number of replicas, is {row['ready'][:40]!r}")
    flying = number(IN_FLIGHT)
    return Line(
        at=_moment(where, row["time"]),
        values={name: number(name) for name in metrics},
        local=None if local is None else float(local),
        remote=None if remote is None else float(remote),
        ready=1 if ready is None else min(int(ready), 1_000_000),
        flying=None if flying is None else float(flying),
    )


def _moment(where: str, text: str) -> datetime:
    try:
        try:
            moment = datetime.fromtimestamp(float(text), UTC)
        except ValueError:
            moment = datetime.fromisoformat(text)
            if moment.tzinfo is None:
                raise
            moment = moment.astimezone(UTC)
        if not _FIRST <= moment.year <= _LAST:
            raise ValueError
        return moment
    except (ValueError, OverflowError, OSError):
        words = f"must be seconds, or a time such as 2026-01-01T00:00:00Z, from {_FIRST} to {_LAST}"
        raise SimulationError(f"{where}: time: {words}, is {text[:40]!r}") from None


def text_of(path: Path) -> str:
    """Read a file of bounded size. Raises SimulationError."""
    try:
        if path.stat().st_size > _LARGEST:
            raise SimulationError(f"{path}: must be at most {_LARGEST} bytes")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise SimulationError(f"{path}:{line}: is not UTF-8 text") from None
    except OSError as error:
        raise SimulationError(f"{path}: cannot be read: {error.strerror}") from None
