"""Everything that can fail, and an Envoy in its midst."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from enum import Enum
from pathlib import Path

from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, HeaderCredential, OAuth, RemoteAuth, RemoteTls
from controller.api.kubernetes.endpoints import Replica
from controller.api.timing import Timing
from tests.support.data_plane.backends import Backend, Backends
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.plane import AT_ONCE, Plane
from tests.support.data_plane.protected import Pki, Tokens
from tests.support.failures import names
from tests.support.network import Network

_CREDENTIAL = CredentialSource.of_secret("credential", "value")
_SECRETS = ((_CREDENTIAL, SecretStr("hush")),)


class Way(Enum):
    """How a model reaches its remote backend."""

    PLAIN = "over plain HTTP"
    BY_NAME = "by a name"
    OVER_TLS = "over TLS"
    WITH_KEY = "with a key"
    WITH_TOKEN = "with a token"


class Site:
    """Three replicas, a remote backend for each way to one, a token endpoint, a name server; the plane, its Envoy.

    And one replica to which nothing ever happens. A model takes its time, `delay` in seconds, so that whatever fails
    has requests in flight.
    """

    def __init__(self, network: Network, folder: Path, delay: float = 0.005, timing: Timing = AT_ONCE) -> None:
        self.usual = f"delay={delay}"
        self.well = Backend("local-well", network.host(50), folder)
        self.backends = Backends(network, folder)
        self.plane = Plane(network, self.backends, folder, timing)
        self.names = names.NameServer(network.host(40), self.backends.remote.host)
        self.tokens = Tokens(network.host(30), accepts="hush", lifetime=2)
        host = network.host(20)
        (folder / "another").mkdir()
        self._pki, another = Pki(folder, host), Pki(folder / "another", host)
        self.proven = Backend("remote-proven", host, folder, (self._pki.server_file,))
        self.impostor = Backend("remote-impostor", host, folder, (another.server_file,))
        self._serving_tokens = contextlib.AsyncExitStack()

    @property
    def replicas(self) -> tuple[Backend, ...]:
        return self.backends.local

    @property
    def well_replica(self) -> Replica:
        """As an EndpointSlice would list it."""
        return Replica(self.well.host, self.well.port, ready=True)

    @property
    def everyone(self) -> tuple[Backend, ...]:
        """Every server that a request may come to."""
        return (*self.backends.all, self.proven, self.impostor, self.well)

    @property
    def remotes(self) -> tuple[Backend, ...]:
        return (self.backends.remote, self.proven, self.impostor)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Site]:
        with self.backends.running(), _running(self.proven), _running(self.well):
            async with self.names.running(), self.plane.running():
                await self.plane.join(change=self.names.asked_by)
                await self.start_tokens()
                try:
                    await self.behave((*self.backends.all, self.well), self.usual)
                    yield self
                finally:
                    await self.stop_tokens()
                    self.impostor.kill()

    def wanted(self, way: Way, common: Wanted) -> Wanted:
        """Complete what is wanted of a model with what the way to its remote backend needs."""
        match way:
            case Way.PLAIN:
                return common
            case Way.BY_NAME:
                return replace(common, host=names.NAME)
            case Way.OVER_TLS:
                host, tls = self.proven.host, RemoteTls(server_name=self.proven.host)
                return replace(common, host=host, tls=tls, authorities=self._pki.authority_file)
            case Way.WITH_KEY:
                key = HeaderCredential(header="x-key", value=_CREDENTIAL)
                return replace(common, auth=RemoteAuth(api_key=key), secrets=_SECRETS)
            case Way.WITH_TOKEN:
                oauth = OAuth(client_id="me", client_secret=_CREDENTIAL, token_url=self.tokens.url)
                return replace(common, auth=RemoteAuth(oauth=oauth), secrets=_SECRETS)

    async def behave(self, servers: Sequence[Backend], behaviour: str, health: int = 200) -> None:
        """Set how servers answer; all of them at nearly the same moment."""

        def set_for(one: Backend) -> None:
            one.behave(behaviour)
            one.report_health(health)

        await asyncio.gather(*(asyncio.to_thread(set_for, one) for one in servers))

    async def kill(self, *servers: Backend) -> None:
        """SIGKILL them at nearly the same moment, while everything else goes on."""
        await asyncio.gather(*(asyncio.to_thread(one.kill) for one in servers))

    async def revive(self, *servers: Backend) -> None:
        """Start those that are dead, while everything else goes on."""
        dead = [one for one in servers if not one.alive]
        await asyncio.gather(*(asyncio.to_thread(one.start) for one in dead))
        # Those that speak TLS are not told how to behave: they are always as their program is by itself.
        await self.behave([one for one in dead if one in self.backends.all], self.usual)

    async def start_tokens(self) -> None:
        await self._serving_tokens.enter_async_context(self.tokens.running())

    async def stop_tokens(self) -> None:
        await self._serving_tokens.aclose()


@contextlib.contextmanager
def _running(server: Backend) -> Iterator[None]:
    server.start()
    try:
        yield
    finally:
        server.kill()
