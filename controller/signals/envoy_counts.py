"""What one Envoy counted, whichever xDS servers repeat it: sums of its streams, and what was new of late. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from controller.api.contract.reports import Count, LoadReport
from controller.decision import Unknown
from controller.signals.load_reports import Rate

LOCAL = "local"
"""The side of the replicas, as the last part of a name."""
ZERO = Count()
SHARED = "its requests to the remote backend cannot be told from those of other models, which are sent there directly"


@dataclass(frozen=True, slots=True)
class Increment:
    """What one report added, in how many seconds, and when it was heard; whether its stream was new to us then."""

    at: datetime
    seconds: float
    added: Mapping[str, Count]
    is_first: bool = False


@dataclass(slots=True)
class Stream:
    """What one stream counted so far, in how many seconds, and when it was heard first and last."""

    since: datetime
    seconds: float = 0.0
    at: datetime | None = None
    counts: dict[str, Count | None] = field(default_factory=dict)


@dataclass(slots=True)
class EnvoyCounts:
    """All streams of one Envoy, the one that was heard last, and what was new of late."""

    streams: dict[float, Stream] = field(default_factory=dict)
    increments: deque[Increment] = field(default_factory=deque)
    newest: Stream | None = None
    server: str = ""
    """The xDS server that told what was heard last."""
    remotes: dict[str, set[str]] = field(default_factory=dict)
    """The counts of remote backends that it ever reported, by the route whose they are."""

    @property
    def last(self) -> Stream:
        """The stream that was heard last."""
        assert self.newest is not None, "an Envoy is known by what it said"
        return self.newest

    def reported_at(self) -> datetime:
        """Say when it was heard last."""
        assert self.last.at is not None, "an Envoy is known by what it said"
        return self.last.at

    def add(self, report: LoadReport, at: datetime, server: str) -> Increment:
        """Record what an xDS server repeats; return what that adds."""
        is_first = report.began not in self.streams
        stream = self.streams.setdefault(report.began, Stream(since=at))
        added = {
            name: _difference(count, stream.counts.get(name))
            for name, count in report.counts.items()
            if count is not None and (is_first or stream.counts.get(name, ZERO) is not None)
        }
        for name in report.counts.keys() - stream.counts.keys():
            route, _, side = name.rpartition("/")
            if side != LOCAL:
                self.remotes.setdefault(route, set()).add(name)
        seconds = report.seconds - stream.seconds
        stream.counts.update(report.counts)
        stream.seconds, stream.at = report.seconds, at
        if self.newest is None or at >= self.reported_at():
            self.newest, self.server = stream, server
        return Increment(at, seconds, added, is_first)

    def take_back(self, now: datetime) -> None:
        """Take what was heard before the clock was set back for something of now, or it would be new until then.

        When what it counted was sent is not known any more.
        """
        self.last.at = min(self.reported_at(), now)
        while self.increments and self.increments[-1].at > now:
            self.increments.pop()

    def forget(self, names: Collection[str]) -> None:
        """Forget these counts."""
        for stream in self.streams.values():
            for name in names & stream.counts.keys():
                del stream.counts[name]

    def let_go(self, window: timedelta, now: datetime) -> None:
        """Let go of what is older than is looked at."""
        # Those of before the clock was set back, too, behind which there are others by now.
        while self.increments and not timedelta(0) <= now - self.increments[0].at <= window:
            self.increments.popleft()
        for began in [one for one, stream in self.streams.items() if stream.at and stream.at < now - 6 * window]:
            if self.streams[began] is not self.newest:
                del self.streams[began]


def taken(name: str, increments: Iterable[Increment]) -> int:
    """Count what did not fail: those that failed were sent elsewhere, or nobody served them."""
    return sum(max(count.issued - count.failed, 0) for one in increments if (count := one.added.get(name)))


def _difference(count: Count, before: Count | None) -> Count:
    # A model that is gone and came back is counted from zero.
    if before is None or any(now < then for now, then in zip(count[:3], before[:3], strict=True)):
        # What is in flight when a stream begins was sent before it: only what it counted, and did not end, is more.
        unended = count.issued - count.succeeded - count.failed
        return count._replace(in_flight=max(min(unended, count.in_flight), 0))
    return Count(*(now - then for now, then in zip(count, before, strict=True)))


def rate(names: Collection[str], envoys: Iterable[EnvoyCounts], since: datetime) -> Rate | Unknown:
    """Add up the rates of these counts through all Envoys, each over what it reported since a moment."""
    issued = failed = 0.0
    for envoy in envoys:
        if any(envoy.last.counts.get(name, ZERO) is None for name in names):
            return Unknown(SHARED)
        increments = [one for one in envoy.increments if one.at >= since]
        seconds = sum(one.seconds for one in increments)
        if not seconds:
            return Unknown("the rate of requests is not known yet")
        added = [one.added.get(name, ZERO) for one in increments for name in names]
        issued += sum(count.issued for count in added) / seconds
        failed += sum(count.failed for count in added) / seconds
    return Rate(issued, failed)
