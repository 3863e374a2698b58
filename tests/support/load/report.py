"""What came of each request, and the arithmetic over many of them. Pure; seconds everywhere."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sample:
    """One request. A request that failed has an `error` in a few words: `timeout`, `truncated`, `status 503`..."""

    start: float
    """Seconds from the start of the load to its arrival."""
    latency: float
    """Seconds from its arrival to the end of its answer, or to its failure."""
    status: int
    """0 when there was no complete answer."""
    route: str
    """`local`, `remote`, or an empty string: the `x-beamlit-route` header."""
    size: int
    """Bytes of the body."""
    error: str = ""
    late: float = 0.0
    """Seconds from its arrival until it was sent: the sender's own delay, part of every other time."""
    first_byte: float = math.nan
    """Seconds from its arrival to the first byte of its answer, whatever became of the rest; NaN when none came."""
    note: str = ""
    """What `Traffic.note` keeps of the answer, or of what there is of it."""

    @property
    def end(self) -> float:
        """Seconds from the start of the load to the end of this request."""
        return self.start + self.latency

    @property
    def sent(self) -> float:
        """Seconds from the start of the load until it was really sent."""
        return self.start + self.late


@dataclass(frozen=True, slots=True)
class Summary:
    """How a number of requests went. Failed ones count in `requests` and `failed`, never in a route or a latency."""

    requests: int
    local: int
    remote: int
    failed: int
    p50: float
    p99: float
    """NaN when nothing was answered, as p50."""

    @property
    def local_share(self) -> float:
        """The share of the routed answers that came from local replicas, 0 to 1; NaN without any."""
        routed = self.local + self.remote
        return self.local / routed if routed else math.nan


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the smallest value that at least `percent` of 100 of all are not above (nearest rank); NaN of none."""
    if not values:
        return math.nan
    rank = max(1, math.ceil(len(values) * percent / 100))
    return sorted(values)[rank - 1]


def summary_of(samples: Iterable[Sample]) -> Summary:
    """Summarise requests."""
    known = tuple(samples)
    answered = tuple(sample for sample in known if not sample.error)
    routes = Counter(sample.route for sample in answered)
    latencies = tuple(sample.latency for sample in answered)
    return Summary(
        requests=len(known),
        local=routes["local"],
        remote=routes["remote"],
        failed=len(known) - len(answered),
        p50=percentile(latencies, 50),
        p99=percentile(latencies, 99),
    )


@dataclass(frozen=True, slots=True)
class Report:
    """Every request of one load, in the order of their start; `seconds` is how long all of it took."""

    samples: tuple[Sample, ...]
    seconds: float

    @property
    def summary(self) -> Summary:
        """All of it."""
        return summary_of(self.samples)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.samples) / self.seconds if self.seconds else math.nan

    @property
    def errors(self) -> Mapping[str, int]:
        """How often each error came."""
        return Counter(sample.error for sample in self.samples if sample.error)

    def between(self, start: float, end: float) -> Report:
        """Return the part whose requests arrived in [start, end), seconds from the start of the load."""
        return Report(tuple(sample for sample in self.samples if start <= sample.start < end), end - start)

    def bins(self, width: float = 1.0) -> tuple[Summary, ...]:
        """Summarise the arrivals of each `width` seconds, from the start of the load to the last bin that has any."""
        bins: list[list[Sample]] = []
        for sample in self.samples:
            index = int(sample.start / width)
            bins.extend([] for _ in range(index + 1 - len(bins)))
            bins[index].append(sample)
        return tuple(summary_of(part) for part in bins)
