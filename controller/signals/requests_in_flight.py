"""The metric `Requests`: how many requests are in flight at the replicas of an object."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

from controller.api.resources.metrics import MetricSpec
from controller.decision import Known, Measurement, Sample
from controller.signals.load_reports import LoadReports
from controller.signals.source import Subject


class RequestsInFlight:
    """Measures by what Envoys report: all of it, or at least so much."""

    def __init__(self, loads: LoadReports) -> None:
        self._loads = loads

    def sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        """See `MetricSource`."""
        load = self._loads.load(subject.ref, now)
        if not isinstance(load, Known):
            return load
        return Known(Measurement(Decimal(load.value.in_flight), lacks=load.value.missing), load.at)
