"""The load that all Envoys of this replica report, and the readers that follow it."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

from controller.api.contract.reports import Count, LoadReport
from controller.api.contract.route import Route, RouteKey
from controller.api.timing import REAL, ReportTiming
from xds_server.loads.counts import ZERO, BackendUsers, StreamCounts, accumulate, is_side_of
from xds_server.resources.loops import CAME_BACK, LEADS_HERE, LOOP_METRICS
from xds_server.resources.names import is_backend
from xds_server.snapshot.snapshot import ResourceKey
from xds_server.stream.load_reporting.wire import ClusterLoad, LoadStream, ReportedLoads

T = TypeVar("T")


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


class _Looped(NamedTuple):
    """How many requests to a backend came back, and how many of them at once."""

    came_back: int
    lead_here: int


_NO_LOOP = _Looped(0, 0)


def _looped(load: ClusterLoad) -> _Looped:
    told = Counter(dict.fromkeys(LOOP_METRICS, 0))
    for locality in load.localities:
        told.update(dict(locality.metrics))
    return _Looped(told[CAME_BACK] + told[LEADS_HERE], told[LEADS_HERE])


class Loads:
    """The counts of each stream, and their sums since this process began. All moments are those of one steady clock.

    Envoy says what is new since its last report, once. So a sum over reports counts nothing twice, on whichever stream
    and at whichever replica a report came. What is in flight is said by the stream of a node that reported last.
    """

    def __init__(self, timing: ReportTiming = REAL.reports) -> None:
        self._timing = timing
        self._users = BackendUsers()
        self._streams: dict[LoadStream, StreamCounts] = {}
        self._ended: set[LoadStream] = set()
        self._totals: dict[str, Count] = {}
        self._recent: dict[str, deque[tuple[float, Count]]] = defaultdict(deque)
        self._looped: dict[str, deque[tuple[float, _Looped]]] = defaultdict(deque)
        self._subscribers: list[Callable[[], None]] = []

    def subscribe(self, callback: Callable[[], None]) -> None:
        """Have `callback` called whenever a report changed a count. It must not wait."""
        self._subscribers.append(callback)

    def report_received(self, stream: LoadStream, report: ReportedLoads, now: float) -> None:
        """Add a report of a client."""
        counts = self._streams.setdefault(stream, StreamCounts())
        before = counts.reports
        new = counts.add_report(report, self._users, now)
        changed = tuple(counts.changed_since(before))
        for name in changed:
            if name not in counts.unknown:
                self._totals.setdefault(name, ZERO)
        for name, count in new.items():
            self._totals[name] = accumulate(self._totals.get(name, ZERO), count)
            if is_backend(name):
                self._recent[name].append((now, count))
        for load in report.busy:
            if is_backend(load.cluster) and (looped := _looped(load)) != _NO_LOOP:
                self._looped[load.cluster].append((now, looped))
        self._drop_old(now)
        if changed:
            for callback in self._subscribers:
                callback()

    def stream_ended(self, stream: LoadStream) -> None:
        """End a stream: what it reported stays a while, for those who have not read it yet."""
        if stream in self._streams:
            self._ended.add(stream)

    def set_route(self, key: RouteKey, route: Route, resources: Iterable[ResourceKey]) -> None:
        """Set a route and the resources that were last published for it."""
        self._users.set_route(key, route, resources)

    def remove_route(self, key: RouteKey) -> None:
        """Forget a route that is no longer published."""
        if not self._users.sides(key):
            return
        self._users.remove_route(key)
        for name in [one for one in self._totals if is_side_of(one, key)]:
            del self._totals[name]
        for counts in self._streams.values():
            counts.remove_route(key)

    def streams(self) -> Mapping[LoadStream, StreamCounts]:
        """Return what each stream counts; those that ended, or fell silent, for a while longer."""
        return self._streams

    def totals(self) -> Mapping[str, Count]:
        """Return what was counted since this process began, by side of a route and by backend cluster."""
        return self._totals

    def in_flight(self, now: float) -> Mapping[str, int]:
        """Say how many requests are in flight now, by side of a route; what is unknown is left out.

        All of it is while an Envoy that reported once says nothing; for one that never did, see `silent`. One that left
        is with another replica, or gone.
        """
        flying: dict[str, int] = defaultdict(int)
        unknown: set[str] = set()
        for counts in self._newest(self._streams.keys() - self._ended):
            if self._is_old(counts, now):
                return {}
            unknown |= counts.unknown
            for name, count in counts.counts.items():
                flying[name] += count.in_flight
        return {name: number for name, number in flying.items() if name not in unknown and not is_backend(name)}

    def answers(self, backend: str, now: float) -> Answers | None:
        """Say how the recent requests to a backend cluster ended; None while no Envoy reports."""
        if all(self._is_old(counts, now) for counts in self._streams.values()):
            return None
        recent = [count for at, count in self._recent.get(backend, ()) if at > now - self._timing.window]
        looped = self._looped.get(backend, ())
        return Answers(
            succeeded=sum(one.succeeded for one in recent),
            failed=sum(one.failed for one in recent),
            came_back=sum(one.came_back for at, one in looped if at > now - self._timing.window),
            lead_here=sum(one.lead_here for at, one in looped if at > now - self._timing.loop_believed),
        )

    def silent(self, nodes: Iterable[str], now: float) -> tuple[str, ...]:
        """Say which of these nodes have not reported of late."""
        reporting = {stream.node for stream, counts in self._streams.items() if not self._is_old(counts, now)}
        return tuple(sorted(frozenset(nodes) - reporting))

    def _newest(self, streams: Iterable[LoadStream]) -> Iterable[StreamCounts]:
        """Find for each node the stream that reported last."""
        last: dict[str, StreamCounts] = {}
        for stream in streams:
            counts = self._streams[stream]
            if stream.node not in last or counts.reported_at >= last[stream.node].reported_at:
                last[stream.node] = counts
        return last.values()

    def _drop_old(self, now: float) -> None:
        for stream in [one for one in self._ended if now - self._streams[one].reported_at > self._timing.window]:
            self._ended.discard(stream)
            del self._streams[stream]
        _drop_before(now - self._timing.window, self._recent)
        _drop_before(now - self._timing.loop_believed, self._looped)

    def _is_old(self, counts: StreamCounts, now: float) -> bool:
        return now - counts.reported_at > self._timing.old_after


def _drop_before(moment: float, histories: Mapping[str, deque[tuple[float, T]]]) -> None:
    for history in histories.values():
        while history and history[0][0] <= moment:
            history.popleft()


class LoadReader:
    """One reader: gets a report for each stream that reported, with everything first and then what changed."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads
        self._read: dict[LoadStream, int] = {}

    def news(self, now: float) -> tuple[LoadReport, ...]:
        """Return a report for each stream that reported since the last call."""
        streams = self._loads.streams()
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
