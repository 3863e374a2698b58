"""What came of a trace under one policy. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from benchmarks.overflow.oracle import must_leave
from benchmarks.overflow.pool import Pool
from tests.support.load import Report, Sample, percentile

FULL = "full"
"""The note of a sample whose request found every place of its replica taken, but not of all."""
NONE = "none"
"""The note of one for which no replica had a place."""
_CALM = 5.0
"""Seconds of the trace without excess after which the next one begins a burst."""


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of the first request that was too much: it left, or no replica had a place for it."""

    same_request: bool
    """Whether it was itself answered by the remote backend."""
    first_answer: float
    """Seconds until the first byte of the first remote answer to it or to one that came later; infinite without."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The figures of a policy. All times are seconds of the trace, of which `scale` seconds of the load are one.

    They count from when a request was really sent: how late the load generator was is a figure of its own.
    """

    report: Report
    pool: Pool
    scale: float

    @property
    def requests(self) -> int:
        """All, those that failed included."""
        return len(self.report.samples)

    @property
    def failed(self) -> int:
        """Those without a good answer."""
        return self.report.summary.failed

    @property
    def met_full(self) -> float:
        """The share of all requests that found, at the replica, all of its places taken."""
        return sum(sample.note in (FULL, NONE) for sample in self.report.samples) / self.requests

    @property
    def away(self) -> float:
        """The share of all requests that the remote backend answered."""
        return sum(map(_left, self.report.samples)) / self.requests

    @property
    def oracle(self) -> float:
        """The share that leaves under the oracle, if requests come when they came here."""
        sent = (sample.sent for sample in self.report.samples)
        return sum(must_leave(sent, self.pool.service * self.scale, self.pool.size)) / self.requests

    @property
    def beyond(self) -> float:
        """The share sent away beyond the oracle's; negative when less left, and waited instead."""
        return self.away - self.oracle

    def first_byte(self, percent: float) -> float:
        """Return a percentile of the time to the first byte."""
        good = (sample for sample in self.report.samples if not sample.error)
        return percentile([(sample.first_byte - sample.late) / self.scale for sample in good], percent)

    def late(self, percent: float) -> float:
        """Return a percentile of how late the load generator sent, in seconds of the load."""
        return percentile([sample.late for sample in self.report.samples], percent)

    def bursts(self) -> tuple[Burst, ...]:
        """Return every burst, in order of time."""
        return tuple(_bursts(self.report.samples, self.scale))


def longest(bursts: Sequence[Burst]) -> float:
    """Return the longest time to the first remote answer; NaN without bursts."""
    return max((burst.first_answer for burst in bursts), default=math.nan)


def typical(bursts: Sequence[Burst]) -> float:
    """Return the median time to the first remote answer; NaN without bursts."""
    return median(burst.first_answer for burst in bursts) if bursts else math.nan


def _left(sample: Sample) -> bool:
    return sample.route == "remote" and not sample.error


def _bursts(samples: Sequence[Sample], scale: float) -> Iterator[Burst]:
    last = -math.inf
    for number, sample in enumerate(samples):
        if not (_left(sample) or sample.note == NONE):
            continue
        if sample.sent - last > _CALM * scale:
            # The next one to leave is, as good as always, the next to have its first byte.
            answers = (one.start + one.first_byte for one in samples[number:] if _left(one))
            yield Burst(_left(sample), (next(answers, math.inf) - sample.sent) / scale)
        last = sample.sent
