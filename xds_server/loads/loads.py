"""The load that all Envoys of this replica report, and the readers that follow it."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from controller.api.contract.reports import Count, LoadReport
from controller.api.contract.route import Route, RouteKey
from controller.api.timing import REAL, ReportTiming
from xds_server.loads.counts import ZERO, BackendUsers, StreamCounts, accumulate
from xds_server.resources.loops import CAME_BACK, LEADS_HERE, LOOP_METRICS
from xds_server.resources.names import LOCAL, is_backend
from xds_server.snapshot.snapshot import ResourceKey
from xds_server.stream.load_reporting.wire import ClusterLoad, LoadStream, ReportedLoads
from xds_server.stream.protocol.parts import Parts


@dataclass(frozen=True, slots=True)
class Answers:
    """How many requests ended well, and how many badly: with 5xx, a reset, or no connection.

    Of the latter, how many `came_back` to this installation; those that `lead_here` did so at once, by way of nobody.
    That is a matter of the backend and not of one request, so it is believed longer (`loop_believed`).
    """

    succeeded: int
    failed: int
    came_back: int = 0
    lead_here: int = 0


class _Pair(NamedTuple):
    """Two counts of one moment: of answers, those that succeeded and failed; of loops, all, and those at once."""

    first: int = 0
    second: int = 0


class _Part(NamedTuple):
    """What was heard at a moment, and when what it counts began."""

    at: float
    began: float
    counted: _Pair


class _History:
    """Pairs of counts, for so many seconds; those of half a second are one, whoever and however many report them."""

    def __init__(self, lasts: float) -> None:
        self._lasts = lasts
        self._parts: deque[_Part] = deque()

    def add(self, one: _Pair, began: float, now: float) -> None:
        """Add a pair that is heard now, and what it counts began then."""
        while self._parts and self._parts[0].at <= now - self._lasts:
            self._parts.popleft()
        if self._parts and now - self._parts[-1].at < _TOGETHER:
            last = self._parts.pop()
            both = _Pair(last.counted.first + one.first, last.counted.second + one.second)
            self._parts.append(_Part(last.at, min(last.began, began), both))
        else:
            self._parts.append(_Part(now, began, one))

    def since(self, moment: float, began: float) -> _Pair:
        """Add up those that were heard after a moment, and count nothing of before `began`."""
        recent = [one.counted for one in self._parts if one.at > moment and one.began >= began]
        return _Pair(sum(one.first for one in recent), sum(one.second for one in recent))


_NOTHING = _History(0.0)


class _Ended(NamedTuple):
    """A stream that ended: when, and how many counts it has left."""

    at: float
    counts: int


_TOGETHER = 0.5
_TO_REPLICAS = f"/{LOCAL}"
_MOST_OF_ENDED = 500_000
"""So many counts of streams that ended are kept at most: some 100 MB, whoever opens streams one after the other."""


def _route_of(side: str) -> str:
    return side.rpartition("/")[0]


def _looped(load: ClusterLoad) -> _Pair:
    told = Counter(dict.fromkeys(LOOP_METRICS, 0))
    for locality in load.localities:
        told.update(dict(locality.metrics))
    return _Pair(told[CAME_BACK] + told[LEADS_HERE], told[LEADS_HERE])


class Loads:
    """The counts of each stream, and their sums since this process began. All moments are those of one steady clock.

    Envoy says what is new since its last report, once. So a sum over reports counts nothing twice, on whichever stream
    and at whichever replica a report came. What is in flight is said by the stream of a node that reported last.
    """

    def __init__(self, timing: ReportTiming = REAL.reports, most_of_ended: int = _MOST_OF_ENDED) -> None:
        self._timing = timing
        self._most_of_ended = most_of_ended
        self._users = BackendUsers()
        self._streams: dict[LoadStream, StreamCounts] = {}
        # The first to end stands first.
        self._ended: dict[LoadStream, _Ended] = {}
        self._kept = 0
        self._totals: dict[str, Count] = {}
        self._recent = defaultdict[str, _History](lambda: _History(timing.window))
        self._looped = defaultdict[str, _History](lambda: _History(timing.loop_believed))
        self._subscribers: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever a report changed a count. It must not wait."""
        self._subscribers.append(callback)

    def report_received(self, stream: LoadStream, report: ReportedLoads, now: float) -> Parts[None]:
        """Add a report of a client."""
        counts = self._streams.get(stream) or StreamCounts()
        found = yield from counts.find_clusters(report, self._users)
        self._streams[stream] = counts
        before = counts.reports
        new = counts.add_report(report, self._users, now, found)
        changed = tuple(counts.changed_since(before))
        for name in changed:
            if name not in counts.unknown:
                self._totals.setdefault(name, ZERO)
        began = now - report.seconds
        for name, count in new.items():
            self._totals[name] = accumulate(self._totals.get(name, ZERO), count)
            if not name.endswith(_TO_REPLICAS):
                self._recent[name].add(_Pair(count.succeeded, count.failed), began, now)
        for load in report.busy:
            if self._users.users(load.cluster) and any(looped := _looped(load)):
                self._looped[load.cluster].add(looped, began, now)
        self._drop_old(now)
        if changed:
            for callback in self._subscribers:
                callback()

    def stream_ended(self, stream: LoadStream, now: float) -> None:
        """End a stream: what it reported stays a while, for those who have not read it yet."""
        if counts := self._streams.get(stream):
            counts.end()
            self._ended[stream] = _Ended(now, len(counts.counts))
            self._kept += len(counts.counts)
        self._drop_old(now)

    def set_route(self, key: RouteKey, route: Route, resources: Iterable[ResourceKey]) -> None:
        """Set a route and the resources that were last published for it."""
        self._forget(self._users.set_route(key, route, resources))

    def remove_route(self, key: RouteKey) -> None:
        """Forget a route that is no longer published."""
        self._forget(self._users.remove_route(key))

    def streams(self, now: float) -> Mapping[LoadStream, StreamCounts]:
        """Return what each stream counts; those that ended, or fell silent, for a while longer."""
        self._drop_old(now)
        return self._streams

    def totals(self) -> Mapping[str, Count]:
        """Return what was counted since this process began, by side of a route and by backend cluster."""
        return self._totals

    def in_flight(self, now: float) -> Mapping[str, int]:
        """Say how many requests are in flight now, by side of a route; what is unknown is left out.

        Both sides of a route are while one of them is: who adds them up would take a part for the whole. All of it is
        while an Envoy that reported once says nothing; for one that never did, see `quiet`. One that left is with
        another replica, or gone.
        """
        if self.quiet((), now):
            return {}
        flying: dict[str, int] = defaultdict(int)
        unknown: set[str] = set()
        for counts in self._newest().values():
            unknown.update(map(_route_of, counts.unknown))
            for name, count in counts.counts.items():
                flying[name] += count.in_flight
        return {
            name: number for name, number in flying.items() if not is_backend(name) and _route_of(name) not in unknown
        }

    def quiet(self, nodes: Iterable[str], now: float) -> frozenset[str]:
        """Say which of these nodes, and of those that report, do not report now: what is in flight there is unknown."""
        newest = self._newest()
        return frozenset(nodes).union(newest) - {node for node, one in newest.items() if not self._is_old(one, now)}

    def answers(self, backend: str, sides: AbstractSet[str], now: float, began: float = -inf) -> Answers | None:
        """Say how the recent requests of these sides to a backend cluster ended; None while no Envoy reports.

        What Envoys counted before `began` is left out. Of a cluster that others use as well, theirs is what passed
        their own, as far as it was counted at the backend, too: what fails on the way, for want of a token, is no
        fault of it. What comes back is only known of all together: of what failed, it may be so many.
        """
        if all(self._is_old(counts, now) for counts in self._streams.values()):
            return None
        recent, looped = self._recent.get(backend, _NOTHING), self._looped.get(backend, _NOTHING)
        lately = now - self._timing.window
        succeeded, failed = recent.since(lately, began)
        came_back = looped.since(lately, began).first
        if self._users.users(backend) <= sides:
            lead_here = looped.since(now - self._timing.loop_believed, began).second
            return Answers(succeeded, failed, came_back, lead_here)
        passed = [self._recent.get(side, _NOTHING).since(lately, began) for side in sides]
        failed = min(failed, sum(one.second for one in passed))
        return Answers(min(succeeded, sum(one.first for one in passed)), failed, min(came_back, failed))

    def silent(self, nodes: Iterable[str], now: float) -> tuple[str, ...]:
        """Say which of these nodes have not reported of late."""
        reporting = {stream.node for stream, counts in self._streams.items() if not self._is_old(counts, now)}
        return tuple(sorted(frozenset(nodes) - reporting))

    def _newest(self) -> Mapping[str, StreamCounts]:
        """Find for each node the stream that reported last, of those that have not ended."""
        last: dict[str, StreamCounts] = {}
        for stream in self._streams.keys() - self._ended:
            counts = self._streams[stream]
            if stream.node not in last or counts.reported_at >= last[stream.node].reported_at:
                last[stream.node] = counts
        return last

    def _forget(self, names: frozenset[str]) -> None:
        if not names:
            return
        for name in names:
            for histories in (self._totals, self._recent, self._looped):
                histories.pop(name, None)
        for counts in self._streams.values():
            counts.forget(names)

    def _drop_old(self, now: float) -> None:
        while self._ended:
            stream, ended = next(iter(self._ended.items()))
            if now - ended.at <= self._timing.window and self._kept <= self._most_of_ended:
                return
            self._kept -= ended.counts
            del self._ended[stream], self._streams[stream]

    def _is_old(self, counts: StreamCounts, now: float) -> bool:
        return now - counts.reported_at > self._timing.old_after


class LoadReader:
    """One reader: gets a report for each stream that reported, with everything first and then what changed."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._read: dict[LoadStream, int] = {}

    def news(self, now: float) -> tuple[LoadReport, ...]:
        """Return a report for each stream that reported since the last call."""
        streams = self._loads.streams(now)
        for gone in self._read.keys() - streams.keys():
            del self._read[gone]
        return tuple(
            self._report(stream, counts, now)
            for stream, counts in tuple(streams.items())
            if counts.reports != self._read.get(stream)
        )

    def _report(self, stream: LoadStream, counts: StreamCounts, now: float) -> LoadReport:
        read = self._read.get(stream, 0)
        self._read[stream] = counts.reports
        changed = sorted(name for name in counts.changed_since(read) if not is_backend(name))
        return LoadReport(
            node=stream.node,
            began=stream.began,
            seconds=counts.seconds,
            age=max(now - counts.reported_at, 0.0),
            counts={name: None if name in counts.unknown else counts.counts[name] for name in changed},
        )
