"""What was measured, and how it is told. Pure; seconds and bytes everywhere."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from tests.support.load import percentile

REPLICAS = 5
"""Of each model."""
AT_MOST = 1.2
"""Times what it costs with few models."""

LEGEND = """\
Times are milliseconds since the request that makes the change, medians and 99th percentiles: written, the API server
has answered it; decided, a watch shows `status.route` with it; sent and acknowledged, between xDS server and Envoy;
effective, the first request of a client is answered by the other side. CPU of one change is what is used beyond what is
used in the turns of the other side; that of Envoy is lost in its health checks, one of each replica a second. Ten
models change, in the same order, however many there are. Writes are requests that create or patch objects of the API
server."""
PEERS = """\
For comparison, one xDS change at 1,000 models with go-control-plane on a machine like this: 34.8 ms and 37.9 ms of CPU
(snapshot cache), 1.4 ms and 2.5 ms (linear cache). Neither reads nor writes anything of an API server."""


@dataclass(frozen=True, slots=True)
class Start:
    """From the start of all programs at once until so much is done, and the CPU that each of them took for it."""

    controller_ready: float
    last_route: float
    last_sent: float
    last_acknowledged: float
    last_programmed: float
    cpu: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Timing:
    """Of one change: from the request that makes it until so much is done."""

    written: float
    decided: float
    sent: float
    acknowledged: float
    effective: float


@dataclass(frozen=True, slots=True)
class Changes:
    """Many changes, one after another. Of one change: `cpu`, beyond what each program uses at rest, and `writes`, the
    objects of the API server that each program wrote.
    """

    timings: tuple[Timing, ...]
    cpu: Mapping[str, float]
    writes: Mapping[str, float]

    def of(self, part: Callable[[Timing], float], percent: float) -> float:
        """Return a percentile of one part."""
        return percentile([part(one) for one in self.timings], percent)


@dataclass(slots=True)
class Figures:
    """All that was measured with so many models. `rest` is the CPU of each program, in seconds a second."""

    models: int
    start: Start
    memory: Mapping[str, int] = field(default_factory=dict)
    rest: Mapping[str, float] = field(default_factory=dict)
    decided: Changes | None = None
    by_hand: Changes | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: what it is, its unit, and how to find it."""

    name: str
    unit: str
    of: Callable[[Figures], float]

    def line(self, columns: Sequence[Figures]) -> str:
        """Write it; the last column is how many times the first figure the last one is."""
        values = [self.of(one) for one in columns]
        ratio = f"{values[-1] / values[0]:>9.2f}" if len(values) > 1 and values[0] > 0 else ""
        return f"{self.name:<44}{self.unit:>6}{''.join(f'{value:>11.2f}' for value in values)}{ratio}"


def table(columns: Sequence[Figures]) -> str:
    """Write all figures that are there; one column for each number of models."""
    header = f"{'':<44}{'':>6}{''.join(f'{one.models:>11}' for one in columns)}{'ratio' if columns[1:] else '':>9}"
    return "\n".join([header, *(row.line(columns) for row in rows(columns))])


def as_object(columns: Sequence[Figures]) -> dict[str, object]:
    """Return all figures as JSON has them, in the units of the table."""
    return {
        "models": [one.models for one in columns],
        "figures": [
            {"name": row.name, "unit": row.unit, "values": [round(row.of(one), 3) for one in columns]}
            for row in rows(columns)
        ],
    }


def rows(columns: Sequence[Figures]) -> Iterator[Row]:
    """List the lines for what every column has."""
    yield from _start_rows(columns)
    for program in columns[0].memory:
        yield Row(f"memory: {program}", "MiB", partial(_memory, program))
    for program in columns[0].rest:
        yield Row(f"CPU at rest: {program}", "%", partial(_rest, program))
    for title, which in (("change", _decided), ("status by hand", _by_hand)):
        if which(columns[0]):
            yield from _change_rows(title, which, columns)


def _start_rows(columns: Sequence[Figures]) -> Iterator[Row]:
    yield Row("start: programs ready", "s", lambda one: one.start.controller_ready)
    yield Row("start: last route written", "s", lambda one: one.start.last_route)
    yield Row("start: last resource sent to Envoy", "s", lambda one: one.start.last_sent)
    yield Row("start: last acknowledged", "s", lambda one: one.start.last_acknowledged)
    yield Row("start: last model Programmed", "s", lambda one: one.start.last_programmed)
    for program in columns[0].start.cpu:
        yield Row(f"start: CPU of {program}", "s", partial(_start_cpu, program))


def _change_rows(title: str, which: _Which, columns: Sequence[Figures]) -> Iterator[Row]:
    for part in ("written", "decided", "sent", "acknowledged", "effective"):
        for percent in (50, 99):
            yield Row(f"{title}: {part}, p{percent}", "ms", partial(_milliseconds, which, part, percent))
    first = which(columns[0])
    for program in first.cpu if first else ():
        yield Row(f"{title}: CPU of {program}", "ms", partial(_change_cpu, which, program))
    for program in first.writes if first else ():
        yield Row(f"{title}: writes of {program}", "", partial(_change_writes, which, program))


_Which = Callable[[Figures], Changes | None]


def _decided(one: Figures) -> Changes | None:
    return one.decided


def _by_hand(one: Figures) -> Changes | None:
    return one.by_hand


def _milliseconds(which: _Which, part: str, percent: float, one: Figures) -> float:
    return _changes(which, one).of(lambda timing: float(getattr(timing, part)), percent) * 1000


def _change_cpu(which: _Which, program: str, one: Figures) -> float:
    return _changes(which, one).cpu[program] * 1000


def _change_writes(which: _Which, program: str, one: Figures) -> float:
    return _changes(which, one).writes[program]


def _changes(which: _Which, one: Figures) -> Changes:
    found = which(one)
    assert found is not None, "not measured"
    return found


def _memory(program: str, one: Figures) -> float:
    return one.memory[program] / (1 << 20)


def _rest(program: str, one: Figures) -> float:
    return one.rest[program] * 100


def _start_cpu(program: str, one: Figures) -> float:
    return one.start.cpu[program]


def verdicts(columns: Sequence[Figures], programs: Sequence[str]) -> Iterator[tuple[bool, str]]:
    """Judge: does one change cost the same with many models as with few? `programs` are those whose CPU counts.

    Until it is sent to Envoy: what it takes from there on is told in `growth_in_envoy`.
    """
    few, many = columns[0], columns[-1]
    for title, which in (("change", _decided), ("status by hand", _by_hand)):
        less, more = which(few), which(many)
        if not less or not more:
            continue
        yield _verdict(f"{title}: median until sent", more.of(_sent, 50) / less.of(_sent, 50))
        for program in programs:
            if program in less.cpu and less.cpu[program] > 0:
                yield _verdict(f"{title}: CPU of {program}", more.cpu[program] / less.cpu[program])
            if less.writes.get(program, 0) > 0:
                yield _verdict(f"{title}: writes of {program}", more.writes[program] / less.writes[program])


def growth_in_envoy(columns: Sequence[Figures]) -> str:
    """Say how much longer Envoy takes with many models: not judged, since it is no program of ours."""
    took = [one.by_hand.of(_in_envoy, 50) * 1000 for one in columns if one.by_hand]
    checks = columns[-1].models * REPLICAS
    return (
        f"told   from sent until effective, by hand: {took[0]:.1f} ms with few models, {took[-1]:.1f} ms with many; "
        f"Envoy's main thread also makes {checks:,} health checks a second"
    )


def _sent(one: Timing) -> float:
    return one.sent


def _in_envoy(one: Timing) -> float:
    return one.effective - one.sent


def _verdict(what: str, ratio: float) -> tuple[bool, str]:
    return ratio <= AT_MOST, f"{what}: {ratio:.2f} times that with few models, at most {AT_MOST}"
