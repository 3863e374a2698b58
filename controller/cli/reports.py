"""What the xDS server of this process says of its Envoys, in the terms of the controller."""

from __future__ import annotations

from controller.api.route import ModelRoute, RemoteRoute
from controller.decision import Known, RemoteFacts, Unknown
from controller.proxies.health import remote_facts
from controller.reconcile.proxies import ProxyReport
from controller.store.objects import ObjectRef
from xds_server.reports import Reports
from xds_server.resources.names import ModelKey


class LocalReports:
    """Reads the reports where they are made."""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    def report(self, model: ObjectRef, route: ModelRoute) -> ProxyReport:
        """Report on one model; an Envoy that still has an older route has not acknowledged this one."""
        said = self._reports.report(ModelKey(model.namespace, model.name))
        if said.route != route.digest:
            return ProxyReport(connected=said.connected, programmed=0)
        return ProxyReport(connected=said.connected, programmed=said.programmed, refusals=said.refusals)

    def remote(self, model: ObjectRef, remote: RemoteRoute) -> Known[RemoteFacts] | Unknown | None:
        """Say whether this remote backend of a model answers. None while that is still being found out."""
        said = self._reports.report(ModelKey(model.namespace, model.name))
        return remote_facts([said if said.route else None], remote)
