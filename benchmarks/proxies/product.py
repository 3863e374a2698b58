"""The product for one model: its control plane in this process, its resources delivered to an Envoy."""

from __future__ import annotations

import secrets
from datetime import timedelta

from benchmarks.proxies import configs
from benchmarks.proxies.configs import Upstreams
from benchmarks.proxies.features import NONE, Feature
from controller.api.endpoints import Replica
from controller.api.route import Header, HttpCheck, LocalBackend, ModelRoute, RemoteRoute, Split
from controller.cli.bootstrap import HostPort, bootstrap_for
from xds_server.resources.model import Gateway, resources_for
from xds_server.resources.names import ModelKey
from xds_server.snapshot.assembly import Assembly
from xds_server.stream.server import XdsServer

_MODEL = ModelKey("default", "chat")


class ControlPlane:
    """Serves one model that listens on `front` and keeps `local` percent to any Envoy with its bootstrap."""

    def __init__(self, front: str, upstreams: Upstreams, local: int, feature: Feature = NONE) -> None:
        route, gateway = feature.route(model_route(upstreams, local)), feature.gateway(Gateway(front))
        replicas = tuple(Replica(host, configs.UPSTREAM_PORT, ready=True) for host in upstreams.replicas)
        self._assembly: Assembly[ModelKey] = Assembly()
        resources = resources_for(_MODEL, route, replicas, gateway)
        self._assembly.replace([(_MODEL, (*resources, *feature.needs))])
        self._token = secrets.token_hex()
        self._server = XdsServer("127.0.0.1:0", self._token, lambda _: None)

    async def start(self) -> str:
        """Serve, and return the bootstrap of the Envoy that is to join."""
        port = await self._server.start()
        snapshot = self._assembly.snapshot
        self._server.publish(snapshot, frozenset(key for key, _ in self._assembly.versions(_MODEL)))
        return bootstrap_for("benchmark", self._token, HostPort("127.0.0.1", port), HostPort("127.0.0.1", 0))

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
            namespace=_MODEL.namespace,
            service=_MODEL.name,
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
