"""What the xDS server of this process says of its Envoys, in the terms of the controller."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from controller.api.contract.route import Remote, Route, RouteKey
from controller.api.timing import ReportTiming
from controller.decision import Known, RemoteFacts, Unknown
from controller.observe.proxies import ProxyReport, remote_facts
from controller.signals.load_reports import FleetLoads, Load
from controller.store.objects import ObjectRef
from xds_server.reports import Reports


class LocalReports:
    """Reads the reports where they are made."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def report(self, model: ObjectRef, route: Route) -> ProxyReport:
        """Report on one model; an Envoy that still has an older route has not acknowledged this one."""
        said = self._reports.report(RouteKey.of_model(model.namespace, model.name))
        if said.route != route.digest:
            return ProxyReport(connected=said.connected, programmed=0)
        return ProxyReport(connected=said.connected, programmed=said.programmed, refusals=said.refusals)

    def remote(self, model: ObjectRef, remote: Remote) -> Known[RemoteFacts] | Unknown | None:
        """Say whether this remote backend of a model answers. None while that is still being found out."""
        said = self._reports.report(RouteKey.of_model(model.namespace, model.name))
        return remote_facts([said if said.route else None], remote)


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
