"""The product for one model: its control plane in this process, its resources delivered to an Envoy."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from secrets import token_hex

from benchmarks.proxies import configs
from benchmarks.proxies.configs import MODEL, Upstreams
from controller.api.contract.route import Header, HttpCheck, LocalBackend, Remote, Route, RouteKey, Split
from controller.api.kubernetes.endpoints import Replica
from controller.gateway.bootstrap import HostPort, bootstrap_for
from tests.support.envoy import ANY_PORT
from xds_server.resources.secret import Values, secret_resources
from xds_server.resources.settings import EnvoySettings
from xds_server.resources.translator import Translator
from xds_server.snapshot.assembly import Assembly
from xds_server.stream.server.server import XdsServer

NO_SECRETS: Values = {}


class ControlPlane:
    """Serves one model that listens on `front`, to any Envoy with its bootstrap. Secrets are given, not read."""

    def __init__(
        self, settings: EnvoySettings, hosts: Sequence[str], route: Route, secrets: Values = NO_SECRETS
    ) -> None:
        self._translator, self._secrets = Translator(settings), secrets
        self._replicas = tuple(Replica(host, configs.UPSTREAM_PORT, ready=True) for host in hosts)
        self._assembly: Assembly[RouteKey] = Assembly()
        self._token = token_hex()
        self._server = XdsServer(self._token, lambda _: None)
        self.publish(route)

    async def start(self) -> str:
        """Serve, and return the bootstrap of the Envoy that is to join."""
        port = await self._server.start("127.0.0.1:0")
        return bootstrap_for("benchmark", self._token, HostPort("127.0.0.1", port), ANY_PORT)

    def publish(self, route: Route) -> None:
        """Serve this route of the model from now on."""
        resources = self._translator.resources(MODEL, route, self._replicas)
        needed = secret_resources(MODEL, route.remote, self._secrets, b"key") if route.remote else ()
        changed = self._assembly.replace([(MODEL, (*resources, *needed))])
        self._server.publish(self._assembly.snapshot, changed)

    async def stop(self) -> None:
        """End the streams and the server."""
        await self._server.stop(0)


def model_route(upstreams: Upstreams, local: int) -> Route:
    """Build the route that the files of this package describe for the other Envoys."""
    name, value = configs.ADDED
    return Route.between(
        port=configs.FRONT_PORT,
        split=Split.away(100 - local),
        local=LocalBackend(
            namespace=MODEL.namespace,
            service=MODEL.name,
            health_check=HttpCheck(path="/healthz", interval=timedelta(seconds=1)),
        ),
        remote=Remote(
            host=upstreams.remote,
            port=configs.UPSTREAM_PORT,
            authority=configs.AUTHORITY,
            path_prefix=configs.PATH_PREFIX,
            headers_to_add=(Header(name=name, value=value),),
        ),
    )
