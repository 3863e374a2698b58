"""What the xDS server of this process knows, in the terms of the controller."""

from __future__ import annotations

from controller.api.route import ModelRoute
from controller.reconcile.proxies import ProxyReport
from controller.store.objects import ObjectRef
from xds_server.delivery import Delivery
from xds_server.resources.names import ModelKey
from xds_server.snapshot.types import SHORT
from xds_server.stream.server import XdsServer


class LocalReports:
    """Reads the reports of the Envoys from the xDS server itself."""

    def __init__(self, delivery: Delivery, server: XdsServer) -> None:
        self._delivery = delivery
        self._server = server

    def report(self, model: ObjectRef, route: ModelRoute) -> ProxyReport:
        """Report on one model; an Envoy that still has an older route has not acknowledged this one."""
        delivered = self._delivery.delivered(ModelKey(model.namespace, model.name))
        versions = delivered.versions if delivered else ()
        envoys = [one for one in self._server.holds(versions) if one.client.initialised and not one.client.is_debug]
        if delivered is None or delivered.route != route:
            return ProxyReport(connected=len(envoys), programmed=0)
        keys = {key for key, _ in versions}
        return ProxyReport(
            connected=len(envoys),
            programmed=sum(envoy.complete for envoy in envoys),
            refusals=tuple(
                f"{envoy.client.node_id} refuses {SHORT[refused.key.type_url]} {refused.key.name}: "
                f"{refused.message.strip()}"
                for envoy in envoys
                for refused in envoy.client.rejections
                if refused.key in keys
            ),
        )
