"""The product for one model: its whole xDS server in this process, over a store in memory, for an Envoy to join."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from datetime import timedelta
from secrets import token_hex

from prometheus_client import CollectorRegistry

from benchmarks.proxies import configs
from benchmarks.proxies.configs import MODEL, Upstreams
from controller.api.contract.route import Header, LocalBackend, Remote, ReplicaCheck, Route, Split
from controller.gateway.bootstrap import HostPort, bootstrap_for
from tests.support.entrance import a_serving_secret
from tests.support.envoy import ANY_PORT
from tests.support.objects import a_model, a_slice
from tests.support.store import MemoryStore
from xds_server.control_plane import ControlPlane, ControlPlaneOptions
from xds_server.resources.secret import Values
from xds_server.resources.translator import EnvoySettings

NO_SECRETS: Values = {}


class ServedModel:
    """A control plane with one model that listens on `front`. `secrets` are the values that its route names."""

    def __init__(
        self, settings: EnvoySettings, hosts: Sequence[str], route: Route, secrets: Values = NO_SECRETS
    ) -> None:
        replicas = a_slice(MODEL.name).in_namespace(MODEL.namespace).ready(*hosts).port(configs.UPSTREAM_PORT)
        by_name: dict[str, dict[str, str]] = {}
        for source, value in secrets.items():
            by_name.setdefault(source.name, {})[source.key.replace(".", "__")] = value.get_secret_value()
        # Nobody asks for a label here.
        held = [a_serving_secret(name, **keys).in_namespace(MODEL.namespace) for name, keys in by_name.items()]
        self._store = MemoryStore([replicas.stored(), *(one.stored() for one in held)])
        self._options = ControlPlaneOptions(
            node_token=token_hex(),
            gateway_address=settings.address,
            access_log=settings.access_log,
            health_checks=False,
        )
        self._versions = itertools.count(1)
        self._plane: ControlPlane | None = None
        self._running: asyncio.Task[None] | None = None
        self.publish(route)

    async def start(self) -> str:
        """Serve, and return the bootstrap of the Envoy that is to join."""
        self._plane = ControlPlane(self._store, self._options, CollectorRegistry())
        port = await self._plane.start("127.0.0.1:0")
        self._running = asyncio.create_task(self._plane.run())
        return bootstrap_for("benchmark", self._options.node_token, HostPort("127.0.0.1", port), ANY_PORT)

    def publish(self, route: Route) -> None:
        """Serve this route of the model from now on."""
        raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
        model = a_model(MODEL.name).in_namespace(MODEL.namespace)
        version = str(next(self._versions))
        self._store.put(model.stored(status={"observedGeneration": 1, "route": raw}, version=version))

    async def stop(self) -> None:
        """End the streams and the server."""
        if self._running and self._plane:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
            await self._plane.stop(0)


def model_route(upstreams: Upstreams, local: int) -> Route:
    """Build the route that the files of this package describe for the other Envoys."""
    name, value = configs.ADDED
    return Route.between(
        port=configs.FRONT_PORT,
        split=Split.away(100 - local),
        local=LocalBackend(
            namespace=MODEL.namespace,
            service=MODEL.name,
            health_check=ReplicaCheck(path="/healthz", interval=timedelta(seconds=1)),
        ),
        remote=Remote(
            host=upstreams.remote,
            port=configs.UPSTREAM_PORT,
            authority=configs.AUTHORITY,
            path_prefix=configs.PATH_PREFIX,
            headers_to_add=(Header(name=name, value=value),),
        ),
    )
