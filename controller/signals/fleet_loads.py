"""The load of every model through all Envoys, from what every replica of the xDS server repeats. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from controller.api.contract.reports import LoadReport
from controller.api.contract.route import REMOTE, RouteKey, RouteKind
from controller.api.timing import REAL, ReportTiming
from controller.decision import Cause, Known, SentRequests, Unknown
from controller.signals.envoy_counts import LOCAL, SHARED, ZERO, EnvoyCounts, rate, taken
from controller.signals.load_reports import Load, SentTo
from controller.signals.runs import Runs
from controller.signals.xds_servers import LastWord, Missing, XdsServers
from controller.store.objects import ObjectRef


class FleetLoads:
    """The load of every model through every Envoy.

    An Envoy is known by its node id, and each stream of it by when it began. It says what is new once, wherever it is
    connected; a replica repeats what a stream counted as a sum since its beginning. So what is added is the difference
    to the last sum of the same stream, and an Envoy that goes to another replica, or comes back, is neither lost nor
    doubled. `now` is UTC.
    """

    def __init__(self, timing: ReportTiming = REAL.reports) -> None:
        self._timing = timing
        self._old_after = timedelta(seconds=timing.old_after)
        self._window = timedelta(seconds=timing.window)
        self._envoys: dict[str, EnvoyCounts] = {}
        self._servers = XdsServers(timing)
        self._heard_at: datetime | None = None
        self._searched_at: datetime | None = None
        self._latest: datetime | None = None
        self._news: set[str] = set()
        self._changed: set[str] = set()
        self._runs = Runs()

    def add_report(self, report: LoadReport, now: datetime, server: str = "") -> None:
        """Record what an xDS server repeats of an Envoy."""
        self._see(now)
        envoy = self._envoys.setdefault(report.node, EnvoyCounts())
        new = envoy.add(report, now - timedelta(seconds=max(report.age, 0.0)), server)
        self._changed.update(report.counts)
        # A stream that others heard for long before us: what it counted says nothing of the last seconds.
        if 0 < new.seconds <= self._timing.window:
            envoy.increments.append(new)
            self._news.update(name for name, count in new.added.items() if count.issued)
        if 0 < new.seconds <= self._timing.window or (new.seconds > 0 and not new.is_first):
            self._runs.add(new.added, new.at, new.seconds)
        envoy.let_go(self._window, now)
        self._forget_old(now)

    def expect(self, server: str, now: datetime, *, is_open: bool) -> None:
        """Record that an xDS server is there, and whether new Envoys may come to it."""
        self._see(now)
        self._servers.expect(server, now, is_open=is_open)

    def set_silent(self, server: str, envoys: Iterable[str], now: datetime) -> None:
        """Record which Envoys of an xDS server report nothing to it."""
        self._see(now)
        self._servers.hear(server, envoys, now)

    def drop(self, server: str, now: datetime) -> None:
        """Record that an xDS server is gone. What it repeated grows old by itself."""
        self._see(now)
        self._servers.drop(server, now)

    def load(self, model: ObjectRef, now: datetime) -> Known[Load] | Unknown:
        """Add up what every Envoy says of a model; Unknown if none does.

        If any that is connected says nothing, or may be connected to an xDS server that is not heard, it is at least
        what the others say. What it lacks is pending for a while: an Envoy has just come, or this program has, or all
        of them changed the xDS server.
        """
        self._see(now)
        fresh = self._fresh(now)
        if fresh:
            self._heard_at = now
        key = _key_of(model)
        local = f"{key}/{LOCAL}"
        # The first message of an Envoy says nothing but who it is.
        lacking = {name: envoy.last.since for name, envoy in fresh.items() if local not in envoy.last.counts}
        found = [
            *self._missing(fresh, now),
            *(Missing(f"Envoy {name} reports no load of the model yet", lacking[name]) for name in sorted(lacking)),
        ]
        if not fresh and not found:
            self._heard_at = self._heard_at or now
            found = [Missing("no Envoy reports load", self._heard_at)]
        missing = self._unknown(found, now) if found else None
        envoys = [envoy for name, envoy in fresh.items() if name not in lacking]
        if missing and not envoys:
            return missing
        flying = sum((envoy.last.counts[local] or ZERO).in_flight for envoy in envoys)
        at = min(envoy.reported_at() for envoy in envoys)
        if missing:
            return Known(Load(flying, missing, missing, missing), at)
        since = now - self._window
        remotes = {f"{key}/{REMOTE}"}.union(*(envoy.remotes.get(str(key), ()) for envoy in envoys))
        return Known(Load(flying, rate([local], envoys, since), rate(remotes, envoys, since)), at)

    def _unknown(self, found: Sequence[Missing], now: datetime) -> Unknown:
        """Say why there is no load, and whether all that is missing may come yet."""
        awaited = timedelta(seconds=self._timing.awaited)
        is_pending = all(timedelta(0) <= now - one.since < awaited for one in found)
        return Unknown(found[0].words, is_pending, found[0].cause)

    def traffic(
        self, model: ObjectRef, remotes: Iterable[str], since: datetime, now: datetime
    ) -> SentRequests | Unknown:
        """Add up what every Envoy says it sent lately, and not before `since`, to each side of a model.

        They are counted up to the last report: what was not reported yet is not known, and does not count as none. Nor
        is it known how many there are a second while an Envoy of those that reported lately is not heard, or may be
        with an xDS server that is not.
        """
        self._see(now)
        key = _key_of(model)
        names = [f"{key}/{one}" for one in remotes]
        envoys = self._envoys.values()
        if any(envoy.last.counts.get(name, ZERO) is None for envoy in envoys for name in names):
            return Unknown(SHARED, cause=Cause.SHARED)
        begun = max(since, now - self._window)
        increments = [
            one
            for envoy in envoys
            for one in envoy.increments
            if one.at > begun and one.at - timedelta(seconds=one.seconds) >= begun
        ]
        local = taken(f"{key}/{LOCAL}", increments)
        remote = sum(taken(name, increments) for name in names)
        answered = sum(one.added.get(name, ZERO).succeeded for one in increments for name in names)
        here = [one.added.get(f"{key}/{LOCAL}", ZERO) for one in increments]
        still, failed = sum(one.in_flight for one in here), sum(one.failed for one in here)
        heard = [envoy.last.counts.get(f"{key}/{LOCAL}") for envoy in envoys if envoy.reported_at() > begun]
        flying = sum(count.in_flight for count in heard if count)
        run = self._runs.run(f"{key}/{LOCAL}", names, since, now)
        sent = SentRequests(local, remote, 0.0, answered, max(local - still, 0), flying, failed, run)
        if not increments or self._is_missed(begun, now):
            return sent
        until = max(one.at for one in increments)
        return replace(sent, seconds=max((until - one.at).total_seconds() + one.seconds for one in increments))

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
        for envoy in self._envoys.values():
            names = {f"{key}/{LOCAL}", *envoy.remotes.pop(key, ())}
            self._runs.forget(names)
            envoy.forget(names)

    def _see(self, now: datetime) -> None:
        """Take all that was heard before the clock was set back for something of now."""
        if self._latest is not None and now < self._latest:
            self._servers.take_back(now)
            for envoy in self._envoys.values():
                envoy.take_back(now)
        self._latest = now

    def _fresh(self, now: datetime) -> Mapping[str, EnvoyCounts]:
        """Find the Envoys that are heard."""
        return {name: envoy for name, envoy in self._envoys.items() if now - envoy.reported_at() <= self._old_after}

    def _missing(self, fresh: Mapping[str, EnvoyCounts], now: datetime) -> tuple[Missing, ...]:
        """Say which Envoys and xDS servers are not heard, though requests may come by way of them."""
        others = [
            LastWord(name, envoy.server, envoy.reported_at())
            for name, envoy in self._envoys.items()
            if name not in fresh
        ]
        return self._servers.missing(fresh.keys(), others, now)

    def _is_missed(self, begun: datetime, now: datetime) -> bool:
        """Whether an Envoy that reported since `begun`, or that may be connected, reports nothing now."""
        old = now - self._old_after
        if any(begun < envoy.reported_at() < old for envoy in self._envoys.values()):
            return True
        return bool(self._missing(self._fresh(now), now))

    def _forget_old(self, now: datetime) -> None:
        if self._searched_at and timedelta(0) <= now - self._searched_at < self._window:
            return
        self._searched_at = now
        for name in [name for name, envoy in self._envoys.items() if envoy.reported_at() < now - 6 * self._window]:
            envoy = self._envoys[name]
            # One whose xDS server is not reached has clients all the same.
            if not self._servers.may_have(LastWord(name, envoy.server, envoy.reported_at()), now):
                del self._envoys[name]


def _key_of(model: ObjectRef) -> RouteKey:
    return RouteKey(RouteKind(model.kind), model.namespace, model.name)


_KINDS = {kind.word: kind for kind in RouteKind}


def _sent_to(name: str) -> SentTo | None:
    word, *rest = name.split("/")
    if word not in _KINDS or len(rest) != 3:
        return None
    namespace, model, side = rest
    return SentTo(ObjectRef(_KINDS[word], namespace, model), side == LOCAL)
