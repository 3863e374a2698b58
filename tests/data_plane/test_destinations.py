"""Where requests may go: nothing reaches an address that is refused, whatever a name leads to, and at any moment."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import pytest
import pytest_asyncio
import trustme
from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, HeaderCredential, OAuth, RemoteAuth, RemoteTls
from controller.api.contract.route import HttpCheck
from controller.api.destinations import ANYWHERE, CHECKS_PORT, OUTSIDE, Destinations
from tests.support.connections import accepting
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.dns import NameServer
from tests.support.http import plain_http
from tests.support.network import Network, unused_port
from tests.support.waiting import until
from xds_server.resources import names
from xds_server.resources.guard import NAME, loopback_address

pytestmark = pytest.mark.asyncio(loop_scope="module")

SECRET = CredentialSource.of_secret("s", "apiKey")
CLIENT = CredentialSource.of_secret("client", "clientSecret")
CA = CredentialSource.of_secret("ca", "ca.crt")
KEY = RemoteAuth(api_key=HeaderCredential(header="x-api-key", value=SECRET))


@dataclass
class Server:
    """Answers whatever it is asked with a status, and counts its connections."""

    status: int = 200
    body: bytes = b"there"
    connections: int = 0
    heads: list[str] = field(default_factory=list)

    @contextlib.asynccontextmanager
    async def at(self, host: str, port: int, authority: trustme.CA | None = None) -> AsyncIterator[None]:
        context = None
        if authority:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert("flip.test").configure_cert(context)
        async with accepting(self._serve, host, port, context):
            yield

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
                self.heads.append(head)
                length = next((int(one[15:]) for one in head.split("\r\n") if one.startswith("content-length:")), 0)
                await reader.readexactly(length)
                writer.write(b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n" % self.status)
                writer.write(b"content-length: %d\r\n\r\n%b" % (len(self.body), self.body))
                await writer.drain()


@dataclass
class Place:
    """A plane whose Envoy asks a name server of ours, one address that is allowed and two that are refused."""

    plane: Plane
    names: dict[str, tuple[str, ...]]
    good: str
    bad: str
    destinations: Destinations
    port: int = field(default_factory=unused_port)

    def lead(self, name: str, *addresses: str) -> str:
        self.names[name] = addresses
        return name

    def wanted(self, name: str, **known: object) -> Wanted:
        return Wanted(**{"away": 100, "host": name, "port": self.port, "destinations": self.destinations, **known})

    async def sides(self, model: Model, requests: int = 20) -> set[tuple[int, str]]:
        replies = [await self.plane.ask(model) for _ in range(requests)]
        return {(one.status, one.route) for one in replies}

    async def until_side(self, model: Model, side: str) -> None:
        await self.plane.all_go(model, side)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(network: Network, backends: Backends, folder: Path) -> AsyncIterator[Place]:
    good, bad, names = network.host(40), network.host(41), {}
    # As in a cluster, but that the addresses of these tests are allowed: loopback is all that they have.
    destinations = OUTSIDE.configured(allow=(f"{good}/32",), deny=())
    async with (
        NameServer.running(network.host(53), names) as server,
        Plane(network, backends, folder).running() as plane,
    ):
        await plane.join(change=server.asked_by_envoy())
        yield Place(plane, names, good, bad, destinations)


WAYS = {
    "direct": {},
    "direct, checked by a path": {"remote_check": HttpCheck(path="/healthz", interval=timedelta(seconds=1))},
    "with a credential": {"auth": KEY, "secrets": ((SECRET, SecretStr("hush")),)},
    "with a limit": {"limit": 100},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
async def test_a_name_that_leads_to_a_refused_address_gets_nothing_and_the_replicas_answer(
    place: Place, family: str, way: str
) -> None:
    address, server = {"IPv4": place.bad, "IPv6": "::1"}[family], Server()
    port = unused_port()
    async with server.at(address, port):
        model = await place.plane.serve(place.wanted(place.lead("bad.test", address), port=port, **WAYS[way]))
        assert await place.sides(model) == {(200, "local")}
        assert server.connections == 0
        # The control: without the guard it is reached.
        model = await place.plane.change(model, replace(model.wanted, destinations=ANYWHERE))
        await place.until_side(model, "remote")
        assert server.connections
        await place.plane.withdraw(model)


@pytest.mark.parametrize("way", WAYS)
async def test_a_name_that_leads_to_an_allowed_address_is_used(place: Place, way: str) -> None:
    server = Server()
    async with server.at(place.good, place.port):
        model = await place.plane.serve(place.wanted(place.lead("good.test", place.good), **WAYS[way]))
        await place.until_side(model, "remote")
        assert await place.sides(model) == {(200, "remote")}
        assert not [head for head in server.heads if "x-beamlit-address" in head or "x-beamlit-cluster" in head]
        await place.plane.withdraw(model)


async def test_who_reaches_the_listener_of_the_checks_gets_no_credential_by_it(place: Place) -> None:
    server = Server()
    async with server.at(place.good, place.port):
        model = await place.plane.serve(place.wanted(place.lead("good.test", place.good), **WAYS["with a credential"]))
        await place.until_side(model, "remote")
        backend = next(key.name for key in place.plane.keys(model) if names.is_backend(key.name))
        checks = f"http://{loopback_address(model.wanted.installation, place.destinations)}:{CHECKS_PORT}/attack"
        server.heads.clear()
        async with plain_http() as client:

            async def status(method: str, *clusters: str, body: bytes = b"") -> int:
                to = [("x-beamlit-address", f"{place.good}:{place.port}")]
                to += [("x-beamlit-cluster", one) for one in clusters]
                return (await client.request(method, checks, headers=to, content=body)).status_code

            for method in ("GET", "POST"):
                for clusters in ((backend,), (backend, NAME), (model.local_cluster,), ()):
                    assert (method, clusters, await status(method, *clusters)) == (method, clusters, 404)
            # Envoy 1.40 dies of a body in what becomes a tunnel.
            assert [await status("PUT", NAME), await status("POST", NAME, body=b"more")] == [404, 404]
            assert not [head for head in server.heads if "attack" in head]
            # The control: so a check comes through.
            assert [await status("GET", NAME), await status("POST", NAME)] == [200, 200]
        assert [head for head in server.heads if head.startswith("get /attack ")]
        assert not [head for head in server.heads if "hush" in head]
        await place.plane.withdraw(model)


async def test_over_tls_the_server_is_verified_behind_the_guard(place: Place) -> None:
    authority, server, hidden = trustme.CA(), Server(), Server()
    secrets = ((CA, SecretStr(authority.cert_pem.bytes().decode())),)
    async with server.at(place.good, place.port, authority), hidden.at(place.bad, place.port, authority):
        for check in (None, HttpCheck(path="/healthz", interval=timedelta(seconds=1))):
            for name, address, side in (("flip.test", place.good, "remote"), ("flip.test", place.bad, "local")):
                tls = RemoteTls(server_name="flip.test", ca=CA)
                wanted = place.wanted(place.lead(name, address), tls=tls, secrets=secrets, remote_check=check)
                model = await place.plane.serve(wanted)
                await place.until_side(model, side)
                assert await place.sides(model) == {(200, side)}
                await place.plane.withdraw(model)
    assert hidden.connections == 0
    assert [head for head in server.heads if head.startswith("get /healthz ")]


async def test_of_several_addresses_only_those_that_are_allowed_are_used(place: Place) -> None:
    """More than half of them being refused does not make Envoy try everything."""
    server, hidden, other = Server(), Server(), Server()
    third = place.plane.network.host(42)
    async with (
        server.at(place.good, place.port),
        hidden.at(place.bad, place.port),
        other.at(third, place.port),
    ):
        model = await place.plane.serve(place.wanted(place.lead("many.test", place.bad, place.good, third)))
        await place.until_side(model, "remote")
        assert await place.sides(model, 60) == {(200, "remote")}
        await place.plane.withdraw(model)
    assert (hidden.connections, other.connections) == (0, 0)


async def flips(place: Place, model: Model, hidden: Server, *steps: tuple[str, str]) -> None:
    """Lead the name of a model to one address after the other: requests are answered, and nothing meets `hidden`."""
    for address, side in steps:
        place.lead(model.wanted.host, address)
        seen: set[int] = set()

        async def is_there(side: str = side, seen: set[int] = seen) -> bool:
            reply = await place.plane.ask(model)
            seen.add(reply.status)
            return reply.route == side

        await until(is_there, f"requests end at {side}", within=30)
        assert seen == {200}
    assert hidden.connections == 0


async def test_a_name_that_flips_is_never_followed_to_a_refused_address(place: Place) -> None:
    hidden = Server()
    async with Server().at(place.good, place.port), hidden.at(place.bad, place.port):
        model = await place.plane.serve(place.wanted(place.lead("flips.test", place.good)))
        await place.until_side(model, "remote")
        await flips(place, model, hidden, (place.bad, "local"), (place.good, "remote"))
        await place.plane.withdraw(model)


async def test_a_name_that_flips_while_the_control_plane_is_dead(backends: Backends, tmp_path: Path) -> None:
    network, hidden, names = Network.unused(), Server(), {}
    good, bad = network.host(40), network.host(41)
    async with (
        NameServer.running(network.host(53), names) as server,
        Plane(network, backends, tmp_path).running() as plane,
    ):
        place = Place(plane, names, good, bad, OUTSIDE.configured(allow=(f"{good}/32",), deny=()))
        await plane.join(change=server.asked_by_envoy())
        async with Server().at(good, place.port), hidden.at(bad, place.port):
            model = await plane.serve(place.wanted(place.lead("flips.test", good)))
            await place.until_side(model, "remote")
            await plane.die()
            await flips(place, model, hidden, (bad, "local"), (good, "remote"))


async def test_a_403_of_the_remote_backend_is_the_clients(place: Place) -> None:
    async with Server(status=403).at(place.good, place.port):
        for way in ({}, WAYS["with a credential"]):
            model = await place.plane.serve(place.wanted(place.lead("forbids.test", place.good), **way))
            await place.until_side(model, "remote")
            assert await place.sides(model) == {(403, "remote")}
            await place.plane.withdraw(model)


@pytest.mark.parametrize("family", ["IPv4", "IPv6"])
async def test_no_token_is_asked_for_at_a_refused_address(place: Place, family: str) -> None:
    address, port = {"IPv4": place.bad, "IPv6": "::1"}[family], unused_port()
    token = b'{"access_token": "t", "token_type": "bearer", "expires_in": 3600}'
    remote, hidden, issuer = Server(), Server(body=token), Server(body=token)
    async with (
        remote.at(place.good, place.port),
        hidden.at(address, port),
        issuer.at(place.good, port),
    ):
        auth = RemoteAuth(
            oauth=OAuth(client_id="me", client_secret=CLIENT, token_url=f"http://issuer.test:{port}/token")
        )
        place.lead("issuer.test", address)
        wanted = place.wanted(place.lead("good.test", place.good), auth=auth, secrets=((CLIENT, SecretStr("hush")),))
        model = await place.plane.serve(wanted)
        assert await place.sides(model) == {(200, "local")}
        # The control: as soon as the name leads elsewhere, there are tokens.
        place.lead("issuer.test", place.good, address)
        await place.until_side(model, "remote")
        await place.plane.withdraw(model)
    assert hidden.connections == 0
    assert issuer.connections
