"""The checks of remote backends, as both programs that have an xDS server set them up."""

from __future__ import annotations

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from controller.api.configuration import Configuration
from controller.api.endpoint_guard import EndpointGuard, admit_all
from xds_server.checks.backend import own_hosts
from xds_server.checks.checks import Checks
from xds_server.checks.connection import SystemResolver, Way
from xds_server.checks.metrics import CheckMetrics
from xds_server.delivery import Delivery


def checks_for(
    delivery: Delivery, configuration: Configuration, registry: CollectorRegistry, guard: EndpointGuard = admit_all
) -> Checks:
    """Set up the checks of what is delivered. Nothing is connected to where the gateway may not be sent."""
    own = own_hosts(configuration.default_remote_backend)

    def refused(host: str, address: str) -> str | None:
        return None if host in own else guard.refused_host(address)

    return Checks(delivery, Way(SystemResolver(), refused), lambda: datetime.now(UTC), CheckMetrics(registry))
