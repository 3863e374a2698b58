"""How much a model has to do, as the controller sees it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from controller.decision import Known, Unknown
from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class Rate:
    """Requests a second that were sent, and that failed. Each try counts: a request that was sent again is two."""

    issued: float
    failed: float


@dataclass(frozen=True, slots=True)
class Load:
    """All requests of a model through every Envoy: in flight at its replicas, and the rates of both sides.

    A side is Unknown when nothing of it was counted for long enough, or when it cannot be told from other models'.
    """

    in_flight: int
    local: Rate | Unknown
    remote: Rate | Unknown


class LoadReports(Protocol):
    """Where the loads come from: the xDS server of the same process, or every replica of it."""

    def load(self, model: ObjectRef, now: datetime) -> Known[Load] | Unknown:
        """Say what load a model has (`now` is UTC); missing reports are Unknown, never zero."""
        ...


NO_LOAD = Unknown("nothing reports load")


class NoLoads:
    """Nobody reports load."""

    def load(self, model: ObjectRef, now: datetime) -> Known[Load] | Unknown:
        """Say what load a model has."""
        return NO_LOAD
