"""The load of a model, from Envoy's load reports: what there is to know, and who knows it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from controller.decision import Cause, Known, SentRequests, Unknown
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
