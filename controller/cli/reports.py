"""What the xDS server of this process knows, in the terms of the controller."""

from __future__ import annotations

from xds_server.stream.server import XdsServer

from controller.api.route import ModelRoute
from controller.reconcile.proxies import NO_PROXIES, ProxyReport
from controller.store.objects import ObjectRef
from xds_server.delivery import Delivery
from xds_server.resources.names import ModelKey
from xds_server.snapshot.types import SHORT


class LocalReports:
    """Reads the reports of the Envoys from the xDS server itself."""

    def __init__(self, delivery: Delivery, server: XdsServer) -> None:
        self._delivery = delivery
        self._server = server

    def report(self, model: ObjectRef, route: ModelRoute) -> ProxyReport:
        """Report on one model; an Envoy that still has an older route has not acknowledged this one."""
        delivered = self._delivery.delivered(ModelKey(model.namespace, model.name))
        clients = [one for one in self._server.clients() if one.initialised and not one.is_debug]
        if delivered is None:
            return ProxyReport(connected=len(clients), programmed=0) if clients else NO_PROXIES
        keys = {key for key, _ in delivered.versions}
        refusals = sorted(
            f"{client.node_id} refuses {SHORT[refused.key.type_url]} {refused.key.name}: {refused.message}"
            for client in clients
            for refused in client.rejections
            if refused.key in keys
        )
        up_to_date = delivered.route == route
        holding = self._server.holds(delivered.versions)
        return ProxyReport(
            connected=len(clients),
            programmed=sum(holding.get(client.stream, False) for client in clients) if up_to_date else 0,
            refusals=tuple(refusals),
        )
