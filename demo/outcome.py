"""What happened in one run, and what came of the requests of each phase. Pure; seconds from the start of the load."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from demo.product import Decision
from tests.support.load import Report, Sample, Step, most, percentile, summary_of


@dataclass(frozen=True, slots=True)
class Kill:
    """Servers that were killed: of which side, and when: at `begin` all of them lived, at `at` none."""

    side: str
    begin: float
    at: float
    unfinished: frozenset[str]
    """The names of the answers that they worked on, as they wrote it down themselves."""

    @property
    def in_flight(self) -> int:
        """How many requests were at them."""
        return len(self.unfinished)

    def since(self, start: float) -> Kill:
        """Return the same, on a clock that began at `start`."""
        return replace(self, begin=self.begin - start, at=self.at - start)

    def cut(self, sample: Sample) -> bool:
        """Tell whether this broke off an answer that had begun. Nobody can repeat such a request (docs/data-plane.md).

        The client knows the name of an answer whose head came. When it notices the end says nothing: it may be busy.
        """
        return broke_off(sample) and sample.note in self.unfinished


def broke_off(sample: Sample) -> bool:
    """Tell whether an answer had begun and then ended too soon. The note of a sample is the name of its answer.

    One that came to no end, for as long as the client waits, did not break off, and nor did one that never began.
    """
    return sample.status == 0 and bool(sample.note)


@dataclass(frozen=True, slots=True)
class Tally:
    """What came of some requests. Each is one of local, remote, cut and failed, unless its answer was from nowhere."""

    requests: int
    local: int
    remote: int
    cut: int
    failed: int
    p50: float
    """Of the time to the first byte; NaN when nothing was answered, as p99."""
    p99: float

    @classmethod
    def of(cls, samples: Iterable[Sample], kills: Sequence[Kill] = ()) -> Tally:
        """Count them."""
        known = tuple(samples)
        summary = summary_of(known)
        cut = sum(any(kill.cut(one) for kill in kills) for one in known)
        waits = [one.first_byte for one in known if not one.error]
        shares = (percentile(waits, 50), percentile(waits, 99))
        return cls(summary.requests, summary.local, summary.remote, cut, summary.failed - cut, *shares)


@dataclass(frozen=True, slots=True)
class Phase:
    """A part of the load and its requests."""

    name: str
    start: float
    end: float
    samples: tuple[Sample, ...]
    tally: Tally
    begun: tuple[int, int]
    """How many requests came to the local replicas in this part, and to the remote backend, as they wrote it down."""
    most: int
    """The most requests in flight at the local replicas, all together, as they wrote it down."""
    capacity: int
    """How many they work on at a time."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that happened."""

    report: Report
    capacity: int
    burst: float
    """When more arrived than the local replicas take."""
    killed: Kill
    """Of every local server."""
    back: float
    """From when on the objects said that they were ready again."""
    remote_killed: Kill
    decisions: tuple[tuple[float, Decision], ...]
    """The decision at the start, and each change of it."""
    local_flight: tuple[Step, ...]
    """What the local replicas had in flight together, as they wrote it down."""
    begun: tuple[tuple[float, ...], tuple[float, ...]]
    """When each request came to the local replicas, and to the remote backend, as they wrote it down."""
    local_answers: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """From when to when each answer was in flight at a local replica, as they wrote it down, by its name."""

    @property
    def kills(self) -> tuple[Kill, Kill]:
        """Both, in the order of time."""
        return self.killed, self.remote_killed

    @property
    def end(self) -> float:
        """When the last request had ended."""
        return max((sample.end for sample in self.report.samples), default=0.0)

    @property
    def tally(self) -> Tally:
        """All of it."""
        return Tally.of(self.report.samples, self.kills)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The load in its parts: a request is of the one in which it arrived, a cut one of the one that cut it."""
        killed, remote_killed = self.killed.at, self.remote_killed.at
        return (
            self._phase("calm", 0.0, self.burst),
            self._phase("burst", self.burst, killed),
            self._phase("every replica killed", killed, self.back, capacity=0),
            self._phase("replicas back", self.back, remote_killed),
            self._phase("remote gone", remote_killed, max(self.end, remote_killed)),
        )

    def _phase(self, name: str, start: float, end: float, capacity: int | None = None) -> Phase:
        samples = tuple(one for one in self.report.samples if start <= self._counted_at(one) < end)
        return Phase(
            name,
            start,
            end,
            samples,
            Tally.of(samples, self.kills),
            (self._begun(0, start, end), self._begun(1, start, end)),
            most(self.local_flight, start, math.nextafter(end, start)),
            self.capacity if capacity is None else capacity,
        )

    def _begun(self, side: int, start: float, end: float) -> int:
        return sum(start <= moment < end for moment in self.begun[side])

    def _counted_at(self, sample: Sample) -> float:
        return next((kill.at for kill in self.kills if kill.cut(sample)), sample.start)
