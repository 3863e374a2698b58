"""The load of a model, from Envoy's load reports."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

from controller.api.contract.reports import Count, LoadReport
from controller.api.contract.route import REMOTE, RouteKey, RouteKind
from controller.api.timing import REAL, ReportTiming
from controller.decision import Cause, Known, SentRequests, Unknown
from controller.signals.runs import Runs
from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second that were sent, and that failed. Each try counts: a request that was sent again is two."""

    issued: float
    failed: float


@dataclass(frozen=True, slots=True)
class Load:
    """All requests of a model through every Envoy: in flight at its replicas, and the rates of both sides.

    `remote` is the sum of all its remote backends. A side is Unknown when nothing of it was counted for long enough, or
    when it cannot be told from other models'. With `missing`, which says what, some Envoy reports nothing of it: so
    many are in flight at the least, and no rate is known.
    """

    in_flight: int
    local: Rate | Unknown
    remote: Rate | Unknown
    missing: Unknown | None = None


class SentTo(NamedTuple):
    """A side of an object that requests were sent to: its replicas (`local`), or a remote backend."""

    ref: ObjectRef
    local: bool


class LoadReports(Protocol):
    """Where the loads come from: the xDS server of the same process, or every replica of it."""

    def load(self, model: ObjectRef, now: datetime) -> Known[Load] | Unknown:
        """Say what load a model has (`now` is UTC); missing reports are Unknown, never zero."""
        ...

    def traffic(
        self, model: ObjectRef, remotes: Iterable[str], since: datetime, now: datetime
    ) -> SentRequests | Unknown:
        """Count what was sent lately to the replicas of a model and to its remote backends, not before `since`."""
        ...

    def news(self, now: datetime) -> frozenset[SentTo]:
        """Say which sides requests were sent to since this was asked last."""
        ...

    def changed(self, now: datetime) -> frozenset[ObjectRef]:
        """Say of which objects anything was counted since this was asked last."""
        ...

    def forget(self, model: ObjectRef) -> None:
        """Forget what was counted of an object that is gone."""


NO_LOAD = Unknown("nothing reports load", cause=Cause.NO_SOURCE)


class NoLoads:
    """Nobody reports load."""

    def load(self, model: ObjectRef, now: datetime) -> Known[Load] | Unknown:
        """Say what load a model has."""
        return NO_LOAD

    def traffic(
        self, model: ObjectRef, remotes: Iterable[str], since: datetime, now: datetime
    ) -> SentRequests | Unknown:
        """Count what was sent lately."""
        return NO_LOAD

    def news(self, now: datetime) -> frozenset[SentTo]:
        """Say where requests were sent."""
        return frozenset()

    def changed(self, now: datetime) -> frozenset[ObjectRef]:
        """Say of which objects anything was counted."""
        return frozenset()

    def forget(self, model: ObjectRef) -> None:
        """Forget what there is none of."""


_LOCAL = "local"
_ZERO = Count()
_SHARED = "its requests to the remote backend cannot be told from those of other models, which are sent there directly"


@dataclass(frozen=True, slots=True)
class _Increment:
    """What one report added, in how many seconds, and when it was heard."""

    at: datetime
    seconds: float
    added: Mapping[str, Count]


@dataclass(slots=True)
class _Stream:
    """What one stream counted so far, in how many seconds, and when it was heard first and last."""

    since: datetime
    seconds: float = 0.0
    at: datetime | None = None
    counts: dict[str, Count | None] = field(default_factory=dict)


@dataclass(slots=True)
class _Node:
    """All streams of one Envoy, the one that was heard last, and what was new of late."""

    streams: dict[float, _Stream] = field(default_factory=dict)
    increments: deque[_Increment] = field(default_factory=deque)
    newest: _Stream | None = None
    remotes: dict[str, set[str]] = field(default_factory=dict)
    """The counts of remote backends that it ever reported, by the route whose they are."""

    @property
    def last(self) -> _Stream:
        """The stream that was heard last."""
        assert self.newest is not None, "a node is known by what it said"
        return self.newest

    def reported_at(self) -> datetime:
        assert self.last.at is not None, "a node is known by what it said"
        return self.last.at

    def take_back(self, now: datetime) -> None:
        """Take what was heard before the clock was set back for something of now, or it would be new until then.

        When what it counted was sent is not known any more.
        """
        self.last.at = min(self.reported_at(), now)
        while self.increments and self.increments[-1].at > now:
            self.increments.pop()


class FleetLoads:
    """The load of every model through every Envoy.

    An Envoy is known by its node id, and each stream of it by when it began. It says what is new once, wherever it is
    connected; a replica repeats what a stream counted as a sum since its beginning. So what is added is the difference
    to the last sum of the same stream, and an Envoy that goes to another replica, or comes back, is neither lost nor
    doubled. `now` is UTC.
    """

    def __init__(self, timing: ReportTiming = REAL.reports) -> None:
        self._timing = timing
        self._nodes: dict[str, _Node] = {}
        self._silent: dict[str, frozenset[str]] = {}
        self._awaited_since: dict[str, datetime] = {}
        self._heard_at: datetime | None = None
        self._searched_at: datetime | None = None
        self._news: set[str] = set()
        self._changed: set[str] = set()
        self._runs = Runs()

    def add_report(self, report: LoadReport, now: datetime) -> None:
        """Record what a replica repeats of an Envoy."""
        node = self._nodes.setdefault(report.node, _Node())
        at = now - timedelta(seconds=report.age)
        is_new = report.began not in node.streams
        stream = node.streams.setdefault(report.began, _Stream(since=at))
        added = {
            name: _difference(count, stream.counts.get(name))
            for name, count in report.counts.items()
            if count is not None and (is_new or stream.counts.get(name, _ZERO) is not None)
        }
        for name in report.counts.keys() - stream.counts.keys():
            route, _, side = name.rpartition("/")
            if side != _LOCAL:
                node.remotes.setdefault(route, set()).add(name)
        seconds = report.seconds - stream.seconds
        stream.counts.update(report.counts)
        self._changed.update(report.counts)
        stream.seconds, stream.at = report.seconds, at
        # A stream that others heard for long before us: what it counted says nothing of the last seconds.
        if 0 < seconds <= self._timing.window:
            node.increments.append(_Increment(at, seconds, added))
            self._news.update(name for name, count in added.items() if count.issued)
        if 0 < seconds <= self._timing.window or (seconds > 0 and not is_new):
            self._runs.add(added, at, seconds)
        if node.newest is None or at >= node.reported_at():
            node.newest = stream
        self._forget_old(node, now)

    def set_silent(self, replica: str, nodes: Iterable[str]) -> None:
        """Record which Envoys of a replica report nothing to it."""
        self._silent[replica] = frozenset(nodes)

    def drop(self, replica: str) -> None:
        """Forget a replica that is gone. What it repeated grows old by itself."""
        self._silent.pop(replica, None)

    def load(self, model: ObjectRef, now: datetime) -> Known[Load] | Unknown:
        """Add up what every Envoy says of a model; Unknown if none does.

        If any that is connected says nothing, it is at least what the others say. What it lacks is pending for a while:
        an Envoy has just come, or this program has, or all of them changed the replica.
        """
        old_after, window = timedelta(seconds=self._timing.old_after), timedelta(seconds=self._timing.window)
        for node in self._nodes.values():
            node.take_back(now)
        fresh = {name: node for name, node in self._nodes.items() if now - node.reported_at() <= old_after}
        silent = sorted({node for nodes in self._silent.values() for node in nodes} - fresh.keys())
        if fresh:
            self._heard_at = now
        self._awaited_since = {name: self._awaited_since.get(name, now) for name in silent}
        key = _key_of(model)
        local = f"{key}/{_LOCAL}"
        lacking = {name: node.last.since for name, node in fresh.items() if local not in node.last.counts}
        missing: Unknown | None = None
        if silent:
            missing = self._none(f"Envoy {silent[0]} reports no load", self._awaited_since.values(), now)
        elif not fresh:
            self._heard_at = self._heard_at or now
            missing = self._none("no Envoy reports load", (self._heard_at,), now)
        elif lacking:
            # The first message of an Envoy says nothing but who it is.
            missing = self._none(f"Envoy {min(lacking)} reports no load of the model yet", lacking.values(), now)
        nodes = [node for name, node in fresh.items() if name not in lacking]
        if missing and not nodes:
            return missing
        flying = sum((node.last.counts[local] or _ZERO).in_flight for node in nodes)
        at = min(node.reported_at() for node in nodes)
        if missing:
            return Known(Load(flying, missing, missing, missing), at)
        since = now - window
        remotes = {f"{key}/{REMOTE}"}.union(*(node.remotes.get(str(key), ()) for node in nodes))
        return Known(Load(flying, _rate([local], nodes, since), _rate(remotes, nodes, since)), at)

    def _none(self, why: str, since: Iterable[datetime], now: datetime) -> Unknown:
        """Say why there is no load, and whether what is missing since these moments may come yet."""
        awaited = timedelta(seconds=self._timing.awaited)
        return Unknown(why, all(timedelta(0) <= now - one < awaited for one in since), Cause.NO_SAMPLE)

    def traffic(
        self, model: ObjectRef, remotes: Iterable[str], since: datetime, now: datetime
    ) -> SentRequests | Unknown:
        """Add up what every Envoy says it sent lately, and not before `since`, to each side of a model.

        They are counted up to the last report: what was not reported yet is not known, and does not count as none. Nor
        is it known how many there are a second while an Envoy of those that reported lately is not heard.
        """
        for node in self._nodes.values():
            node.take_back(now)
        key = _key_of(model)
        names = [f"{key}/{one}" for one in remotes]
        if any(node.last.counts.get(name, _ZERO) is None for node in self._nodes.values() for name in names):
            return Unknown(_SHARED, cause=Cause.SHARED)
        begun = max(since, now - timedelta(seconds=self._timing.window))
        increments = [
            one
            for node in self._nodes.values()
            for one in node.increments
            if one.at > begun and one.at - timedelta(seconds=one.seconds) >= begun
        ]
        local = _taken(f"{key}/{_LOCAL}", increments)
        remote = sum(_taken(name, increments) for name in names)
        answered = sum(one.added.get(name, _ZERO).succeeded for one in increments for name in names)
        here = [one.added.get(f"{key}/{_LOCAL}", _ZERO) for one in increments]
        still, failed = sum(one.in_flight for one in here), sum(one.failed for one in here)
        heard = [node.last.counts.get(f"{key}/{_LOCAL}") for node in self._nodes.values() if node.reported_at() > begun]
        flying = sum(count.in_flight for count in heard if count)
        run = self._runs.run(f"{key}/{_LOCAL}", names, since, now)
        sent = SentRequests(local, remote, 0.0, answered, max(local - still, 0), flying, failed, run)
        if not increments or self._is_missed(begun, now):
            return sent
        until = max(one.at for one in increments)
        return replace(sent, seconds=max((until - one.at).total_seconds() + one.seconds for one in increments))

    def _is_missed(self, begun: datetime, now: datetime) -> bool:
        """Whether an Envoy that reported since `begun`, or that is connected, reports nothing now."""
        old = now - timedelta(seconds=self._timing.old_after)
        silent = {node for nodes in self._silent.values() for node in nodes}
        return any(
            node.reported_at() < old and (node.reported_at() > begun or name in silent)
            for name, node in self._nodes.items()
        ) or bool(silent - self._nodes.keys())

    def news(self, now: datetime) -> frozenset[SentTo]:
        """Say which sides requests were sent to since this was asked last."""
        names, self._news = self._news, set()
        return frozenset(one for one in map(_sent_to, names) if one)

    def changed(self, now: datetime) -> frozenset[ObjectRef]:
        """Say of which objects anything was counted since this was asked last."""
        names, self._changed = self._changed, set()
        return frozenset(one.ref for one in map(_sent_to, names) if one)

    def forget(self, model: ObjectRef) -> None:
        """Forget what was counted of an object that is gone: an Envoy that stays would have it counted for ever."""
        key = str(_key_of(model))
        for node in self._nodes.values():
            names = {f"{key}/{_LOCAL}", *node.remotes.pop(key, ())}
            self._runs.forget(names)
            for stream in node.streams.values():
                for name in names & stream.counts.keys():
                    del stream.counts[name]

    def _forget_old(self, node: _Node, now: datetime) -> None:
        window = timedelta(seconds=self._timing.window)
        # Those of before the clock was set back, too, behind which there are others by now.
        while node.increments and not timedelta(0) <= now - node.increments[0].at <= window:
            node.increments.popleft()
        for began in [one for one, stream in node.streams.items() if stream.at and stream.at < now - 6 * window]:
            if node.streams[began] is not node.newest:
                del node.streams[began]
        if self._searched_at and timedelta(0) <= now - self._searched_at < window:
            return
        self._searched_at = now
        for name in [one for one, other in self._nodes.items() if other.reported_at() < now - 6 * window]:
            del self._nodes[name]


def _key_of(model: ObjectRef) -> RouteKey:
    return RouteKey(RouteKind(model.kind), model.namespace, model.name)


_KINDS = {kind.word: kind for kind in RouteKind}


def _sent_to(name: str) -> SentTo | None:
    word, *rest = name.split("/")
    if word not in _KINDS or len(rest) != 3:
        return None
    namespace, model, side = rest
    return SentTo(ObjectRef(_KINDS[word], namespace, model), side == _LOCAL)


def _taken(name: str, increments: Iterable[_Increment]) -> int:
    """Count what did not fail: those that failed were sent elsewhere, or nobody served them."""
    return sum(max(count.issued - count.failed, 0) for one in increments if (count := one.added.get(name)))


def _difference(count: Count, before: Count | None) -> Count:
    # A model that is gone and came back is counted from zero.
    if before is None or any(now < then for now, then in zip(count[:3], before[:3], strict=True)):
        # What is in flight when a stream begins was sent before it: only what it counted, and did not end, is more.
        unended = count.issued - count.succeeded - count.failed
        return count._replace(in_flight=max(min(unended, count.in_flight), 0))
    return Count(*(now - then for now, then in zip(count, before, strict=True)))


def _rate(names: Collection[str], nodes: Iterable[_Node], since: datetime) -> Rate | Unknown:
    """Add up the rates of these counts through all Envoys, each over what it reported since a moment."""
    issued = failed = 0.0
    for node in nodes:
        if any(node.last.counts.get(name, _ZERO) is None for name in names):
            return Unknown(_SHARED)
        increments = [one for one in node.increments if one.at >= since]
        seconds = sum(one.seconds for one in increments)
        if not seconds:
            return Unknown("the rate of requests is not known yet")
        added = [one.added.get(name, _ZERO) for one in increments for name in names]
        issued += sum(count.issued for count in added) / seconds
        failed += sum(count.failed for count in added) / seconds
    return Rate(issued, failed)
