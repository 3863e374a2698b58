"""The product for one model: its control plane in this process, its resources delivered to an Envoy."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import timedelta

from benchmarks.proxies import configs
from benchmarks.proxies.configs import MODEL, Upstreams
from benchmarks.proxies.features import NONE, Feature
from controller.api.endpoints import Replica
from controller.api.route import Header, HttpCheck, LocalBackend, ModelRoute, RemoteRoute, Split
from controller.cli.bootstrap import HostPort, bootstrap_for
from xds_server.resources.model import Gateway, resources_for
from xds_server.resources.names import ModelKey
from xds_server.snapshot.assembly import Assembly
from xds_server.stream.server import XdsServer

_ANY_PORT = HostPort("127.0.0.1", 0)


class ControlPlane:
    """Serves one model that listens on `front`, to any Envoy with its bootstrap."""

    def __init__(self, front: str, hosts: Sequence[str], route: ModelRoute, feature: Feature = NONE) -> None:
        self._gateway, self._feature = feature.gateway(Gateway(front)), feature
        self._replicas = tuple(Replica(host, configs.UPSTREAM_PORT, ready=True) for host in hosts)
        self._assembly: Assembly[ModelKey] = Assembly()
        self._token = secrets.token_hex()
        self._server = XdsServer("127.0.0.1:0", self._token, lambda _: None)
        self.publish(route)

    async def start(self, admin: HostPort = _ANY_PORT) -> str:
        """Serve, and return the bootstrap of the Envoy that is to join."""
        port = await self._server.start()
        return bootstrap_for("benchmark", self._token, HostPort("127.0.0.1", port), admin)

    def publish(self, route: ModelRoute) -> None:
        """Serve this route of the model from now on."""
        resources = resources_for(MODEL, self._feature.route(route), self._replicas, self._gateway)
        changed = self._assembly.replace([(MODEL, (*resources, *self._feature.needs))])
        self._server.publish(self._assembly.snapshot, changed)

    async def stop(self) -> None:
        """End the streams and the server."""
        await self._server.stop(0)


def model_route(upstreams: Upstreams, local: int) -> ModelRoute:
    """Build the route that the files of this package describe for the other Envoys."""
    name, value = configs.ADDED
    return ModelRoute(
        port=configs.FRONT_PORT,
        split=Split.away(100 - local),
        local=LocalBackend(
            namespace=MODEL.namespace,
            service=MODEL.name,
            health_check=HttpCheck(path="/healthz", interval=timedelta(seconds=1)),
        ),
        remote=RemoteRoute(
            host=upstreams.remote,
            port=configs.UPSTREAM_PORT,
            authority=configs.AUTHORITY,
            path_prefix=configs.PATH_PREFIX,
            headers_to_add=(Header(name=name, value=value),),
        ),
    )
