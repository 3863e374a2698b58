"""Servers of streams on both sides, and the ways that a request may take to either."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import aiohttp
import grpc
from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, HeaderCredential, RemoteAuth
from controller.api.contract.route import RouteKey
from controller.api.kubernetes.endpoints import Replica
from controller.api.timing import Timing
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted, route_of
from tests.support.data_plane.plane import AT_ONCE, Plane
from tests.support.data_plane.stream_grpc import GrpcServer
from tests.support.data_plane.stream_http import StreamServer
from tests.support.data_plane.visits import Visits
from tests.support.envoy import Bootstrap, as_it_is
from tests.support.network import BACKEND_PORT, Network
from xds_server.resources.secret import secret_resources
from xds_server.snapshot.snapshot import Resource, ResourceKey

KEY_OF_SECRET = CredentialSource.of_secret("key", "apiKey")
KEY = RemoteAuth(api_key=HeaderCredential(header="x-key", value=KEY_OF_SECRET))

# The side that answers, by the way that a request takes.
WAYS: Mapping[str, str] = {
    "local": "local",
    "remote": "remote",
    # With a credential of ours: through the internal listener in front of the remote backend.
    "guarded": "remote",
    # The replicas have a limit: what leaves goes through the same internal listener, and what stays is counted.
    "limited": "local",
    "limited-away": "remote",
    # Every replica is dead and still listed: through the same internal listener.
    "failover": "remote",
    # The remote backend is dead: back through the internal listener in front of the replicas.
    "fallback": "local",
    "guarded-fallback": "local",
    "limited-fallback": "local",
}
# In which the request reaches the server that it was first sent to.
SENT_ONCE = ("local", "remote", "guarded", "limited", "limited-away")


@dataclass(frozen=True)
class Servers:
    """Two replicas and a remote backend that speak one protocol."""

    local: tuple[StreamServer, ...] | tuple[GrpcServer, ...]
    remote: StreamServer | GrpcServer
    nobody: str
    """An address at which nobody listens."""

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return tuple(one.replica for one in self.local)

    def wanted(self, way: str = "local", **more: Any) -> Wanted:
        """Ask for a model whose requests all go this way."""
        dead = (Replica(self.nobody, BACKEND_PORT, ready=True),)
        wanted = Wanted(replicas=self.replicas, host=self.remote.host, path_prefix="/p")
        return replace(
            {
                "local": wanted,
                "remote": replace(wanted, away=100),
                "guarded": replace(wanted, away=100, auth=KEY),
                "limited": replace(wanted, limit=100),
                "limited-away": replace(wanted, away=100, limit=100),
                "failover": replace(wanted, replicas=dead),
                "fallback": replace(wanted, away=100, host=self.nobody),
                "guarded-fallback": replace(wanted, away=100, host=self.nobody, auth=KEY),
                "limited-fallback": replace(wanted, away=100, host=self.nobody, limit=100),
            }[way],
            **more,
        )


class Stage:
    """A plane, the servers of both protocols, and clients."""

    def __init__(self, plane: Plane, http: Servers, rpc: Servers, visits: Visits) -> None:
        self.plane, self.http, self.rpc, self.visits = plane, http, rpc, visits
        self._secrets: dict[ResourceKey, Resource] = {}
        # Each request has a connection of its own, and its answer may take as long as it likes.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        self.session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(), read_bufsize=1 << 16)
        self._numbers = itertools.count(1)

    def bring_secrets(self, wanted: Wanted, values: Mapping[CredentialSource, str]) -> None:
        """Give Envoy the secrets that such a model names, or new values of them."""
        any_model = Model(RouteKey.of_model("ns", "any"), "http://x:1/", wanted)
        remote = route_of(any_model, wanted, self.http.nobody).remote
        assert remote
        secret = {source: SecretStr(value) for source, value in values.items()}
        self._secrets |= {one.key: one for one in secret_resources(any_model.key, remote, secret, b"key")}
        self.plane.publish_also(*self._secrets.values())

    def probe(self) -> str:
        return f"p{next(self._numbers)}"

    @contextlib.asynccontextmanager
    async def channel(self, model: Model) -> AsyncIterator[grpc.aio.Channel]:
        async with grpc.aio.insecure_channel(address_of(model), options=[("grpc.use_local_subchannel_pool", 1)]) as one:
            yield one


def address_of(model: Model) -> str:
    return model.url.removeprefix("http://").strip("/")


@contextlib.asynccontextmanager
async def stage_on(
    network: Network,
    folder: Path,
    *flags: str,
    timing: Timing = AT_ONCE,
    change: Callable[[Bootstrap], None] = as_it_is,
) -> AsyncIterator[Stage]:
    """Run everything, with one Envoy that has these flags; `change` edits its bootstrap before."""
    visits = Visits()
    nobody = network.host(99)
    web = [StreamServer(name, network.host(40 + n), visits) for n, name in enumerate(("local-1", "local-2", "remote"))]
    rpc = [GrpcServer(name, network.host(50 + n), visits) for n, name in enumerate(("local-1", "local-2", "remote"))]
    backends = Backends(network, folder)  # not started: every model here brings its own
    async with contextlib.AsyncExitStack() as stack:
        for server in (*web, *rpc):
            await stack.enter_async_context(server.running())
        plane = await stack.enter_async_context(Plane(network, backends, folder, timing).running())
        await plane.join(flags=flags, change=change)
        stage = Stage(plane, Servers(tuple(web[:2]), web[2], nobody), Servers(tuple(rpc[:2]), rpc[2], nobody), visits)
        stack.push_async_callback(stage.session.close)
        stage.bring_secrets(Wanted(auth=KEY), {KEY_OF_SECRET: "hush"})
        yield stage
