"""The checks of remote backends, as both programs that have an xDS server set them up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

from prometheus_client import CollectorRegistry

from controller.api.kubernetes.endpoints import EndpointGuard, admit_all
from controller.api.resources.configuration import Configuration
from controller.api.timing import CheckTiming
from xds_server.health.backend import own_hosts
from xds_server.health.checks import CheckMetrics, Checks
from xds_server.health.connection import Way
from xds_server.health.judgement import NO_TRAFFIC, Counts, Traffic
from xds_server.health.resolver import SystemResolver
from xds_server.loads.loads import Loads
from xds_server.routes.delivery import Delivery


def checks_for(
    delivery: Delivery,
    way: Way,
    registry: CollectorRegistry,
    traffic: Traffic = NO_TRAFFIC,
) -> Checks:
    """Set up the checks of what is delivered."""
    return Checks(delivery, way, lambda: datetime.now(UTC), CheckMetrics(registry), traffic)


def way_for(configuration: Configuration, timing: CheckTiming, guard: EndpointGuard = admit_all) -> Way:
    """Say how backends are connected to: not where the gateway may not be sent."""
    return Way(SystemResolver(), refusal(guard, own_hosts(configuration.default_remote_backend)), timing)


def refusal(guard: EndpointGuard, own: frozenset[str]) -> Callable[[str, str], str | None]:
    """Say why nothing may be sent to an address that a host leads to; hosts of our own may lead anywhere."""
    return lambda host, address: None if host in own else guard.refused_host(address)


class ReportedTraffic:
    """What the Envoys of this replica report of a backend, by the clock of the event loop that runs."""

    def __init__(self, loads: Loads) -> None:
        self._loads = loads

    def counts(self, backend: str) -> Counts | None:
        """Count the recent requests of one backend; None while no Envoy reports any."""
        found = self._loads.answers(backend, asyncio.get_running_loop().time())
        return Counts(found.succeeded, found.failed) if found else None
