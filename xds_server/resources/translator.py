"""From routes to Envoy resources, for all Envoys that share one set of settings."""

from __future__ import annotations

from dataclasses import replace

from controller.api.contract.route import Route, RouteKey
from controller.api.kubernetes.endpoints import Replica
from xds_server.resources.model import Gateway, resources_for
from xds_server.snapshot.snapshot import Resource


class Translator:
    """Translates routes for the Envoys of one scope, and remembers the parts that seldom change."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway

    def resources(
        self, key: RouteKey, route: Route, replicas: tuple[Replica, ...], envoys: int = 1
    ) -> tuple[Resource, ...]:
        """Translate a route and its replicas into everything an Envoy needs to serve it; `envoys` share its limit."""
        return resources_for(key, route, replicas, replace(self._gateway, envoys=envoys))
