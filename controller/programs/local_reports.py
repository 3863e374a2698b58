"""What the xDS server of this process says of its Envoys, in the terms of the controller."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from controller.api.contract.route import RouteKey, RouteKind
from controller.api.timing import ReportTiming
from controller.decision import Known, Unknown
from controller.observe.proxies import ProxyFacts, ReplicaFacts
from controller.signals.load_reports import FleetLoads, Load
from controller.store.objects import ObjectRef
from xds_server.reports import Reports


class LocalReports:
    """Reads the reports where they are made."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def facts(self, ref: ObjectRef) -> ProxyFacts:
        """Return what is reported of the route of one object."""
        report = self._reports.report(RouteKey(RouteKind(ref.kind), ref.namespace, ref.name))
        return ProxyFacts((ReplicaFacts(report if report.route else None, report.connected),))


class LocalLoads:
    """Reads the loads where they are heard; `clock` is the steady one by which they were."""

    def __init__(self, reports: Reports, clock: Callable[[], float], timing: ReportTiming) -> None:
        self._reports = reports
        self._reader = reports.loads()
        self._clock = clock
        self._loads = FleetLoads(timing)

    def load(self, model: ObjectRef, now: datetime) -> Known[Load] | Unknown:
        """Say what load a model has."""
        for report in self._reader.news(self._clock()):
            self._loads.hear(report, now)
        self._loads.silent("", self._reports.replica(self._clock()).silent)
        return self._loads.load(model, now)
