"""Which xDS servers are not heard, and which Envoys since: what a sum over those that are heard lacks. Pure.

An Envoy that is connected has clients, whether the controller hears of it or not (docs/adr/0085).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from controller.api.timing import ReportTiming
from controller.decision import Cause


class LastWord(NamedTuple):
    """When an Envoy was heard last, and by which xDS server."""

    envoy: str
    server: str
    at: datetime


class Missing(NamedTuple):
    """That something is not heard, in words, and since when it has been waited for."""

    words: str
    since: datetime
    cause: Cause = Cause.NO_SAMPLE


@dataclass(slots=True)
class _Server:
    """One xDS server: `since` when it is waited for, when it was heard last, and who of its Envoys said nothing then.

    It is `named` while somebody says that it is there, and `is_open` while new Envoys may come to it.
    """

    since: datetime
    named: bool = False
    is_open: bool = False
    heard_at: datetime | None = None
    gone_at: datetime | None = None
    silent: frozenset[str] = frozenset()


class XdsServers:
    """What each xDS server says of its Envoys, and when it said so. All moments are UTC.

    Of one that is not heard, as the network is cut or its node is gone, this is known: its Envoys are with it, until
    they are heard by way of another one. New ones may be, too, while it is open to them. Once nobody names it any more
    it has ended, and they are waited for as long as they take to find another one. One that nobody named is believed
    whenever it was heard: it is in the same process.
    """

    def __init__(self, timing: ReportTiming) -> None:
        self._old_after = timedelta(seconds=timing.old_after)
        self._awaited = timedelta(seconds=timing.awaited)
        self._servers: dict[str, _Server] = {}
        self._silent_since: dict[str, datetime] = {}

    def expect(self, server: str, now: datetime, *, is_open: bool) -> None:
        """Record that an xDS server is named, and whether new Envoys may come to it."""
        one = self._servers.get(server)
        if one is None or not one.named:
            one = self._servers[server] = _Server(since=now, named=True)
        if is_open and not one.is_open:
            one.since = now
        one.is_open = is_open

    def hear(self, server: str, silent: Iterable[str], now: datetime) -> None:
        """Record which Envoys of an xDS server report nothing to it."""
        one = self._servers.setdefault(server, _Server(since=now))
        one.heard_at, one.silent = now, frozenset(silent)

    def drop(self, server: str, now: datetime) -> None:
        """Record that an xDS server is named no more."""
        one = self._servers.get(server)
        if one and one.named:
            one.named, one.gone_at = False, now
        elif one:
            del self._servers[server]
        for name in [name for name, one in self._servers.items() if one.gone_at and not self._awaits(one, now)]:
            del self._servers[name]

    def take_back(self, now: datetime) -> None:
        """Take what was before the clock was set back for something of now."""
        for one in self._servers.values():
            one.since = min(one.since, now)
            one.heard_at = one.heard_at and min(one.heard_at, now)
            one.gone_at = one.gone_at and min(one.gone_at, now)

    def may_have(self, last: LastWord, now: datetime) -> bool:
        """Say whether an Envoy that is not heard may still be with its xDS server, or on its way from there."""
        one = self._servers.get(last.server)
        return one is not None and (one.named or self._awaits(one, now)) and not self._let_go(one, last.at)

    def missing(self, heard: AbstractSet[str], others: Collection[LastWord], now: datetime) -> tuple[Missing, ...]:
        """Say what is not heard, while these Envoys are, and what is known of the others is older."""
        found, silent = list[Missing](), set[str]()
        for name, one in sorted(self._servers.items()):
            with_it = {last.envoy for last in others if last.server == name and not self._let_go(one, last.at)}
            silent_there = one.silent - heard
            if self._is_away(one, now):
                if one.is_open or with_it or silent_there:
                    words = f"the xDS server {name} is not reached"
                    found.append(Missing(words, one.heard_at or one.since, Cause.NOT_ANSWERING))
            elif one.gone_at is None:
                silent |= silent_there | with_it if one.named else silent_there
            elif self._awaits(one, now):
                since = one.gone_at
                words = f"is not heard since the xDS server {name} is gone"
                found.extend(Missing(f"Envoy {envoy} {words}", since) for envoy in sorted(with_it | silent_there))
        self._silent_since = {name: self._silent_since.get(name, now) for name in sorted(silent)}
        told = [Missing(f"Envoy {name} reports no load", since) for name, since in self._silent_since.items()]
        return (*found, *told)

    def _is_away(self, one: _Server, now: datetime) -> bool:
        return one.named and (one.heard_at is None or now - one.heard_at > self._old_after)

    def _awaits(self, one: _Server, now: datetime) -> bool:
        return one.gone_at is not None and now - one.gone_at < self._awaited

    def _let_go(self, one: _Server, at: datetime) -> bool:
        """Say whether an xDS server told nothing of an Envoy when it would have had to call it silent."""
        return one.heard_at is not None and one.heard_at - at > self._old_after
