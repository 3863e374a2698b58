"""Names with addresses of both families, of which one can be reached: it is (RFC 6724, rule 1; RFC 8305)."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web
from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource, OAuth, RemoteAuth
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.protected import Tokens
from tests.support.dns import NameServer
from tests.support.network import Network, unused_port

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Who answers at a name with two addresses. Nobody listens at the other one.
WHO_ANSWERS = pytest.mark.parametrize("answers", ["four", "six"])
CLIENT = CredentialSource.of_secret("client", "clientSecret")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def hosts(network: Network) -> dict[str, str]:
    """The address that answers, by the name that leads to it and to another one."""
    return {"four": network.host(40), "six": "::1"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(network: Network, backends: Backends, folder: Path, hosts: dict[str, str]) -> AsyncIterator[Plane]:
    names = {"four.test": (hosts["four"], "::1"), "six.test": (network.host(41), hosts["six"])}
    async with (
        NameServer.running(network.host(53), names) as server,
        Plane(network, backends, folder).running() as plane,
    ):
        await plane.join(change=server.asked_by_envoy())
        yield plane


async def test_the_control_plane_is_reached_by_the_address_that_answers(backends: Backends, tmp_path: Path) -> None:
    network = Network.unused()
    async with (
        Plane(network, backends, tmp_path).running() as plane,
        NameServer.running(network.host(53), {"xds.test": (plane.xds.host, "::1")}) as server,
    ):
        await plane.join(change=lambda bootstrap: _by_name(server, "xds.test", bootstrap))
        model = await plane.serve(Wanted())
        assert (await plane.ask(model)).route == "local"


def _by_name(server: NameServer, name: str, bootstrap: dict[str, Any]) -> None:
    """Have an Envoy find its control plane by a name."""
    server.asked_by_envoy()(bootstrap)
    (cluster,) = bootstrap["static_resources"]["clusters"]
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    endpoint["endpoint"]["address"]["socket_address"]["address"] = name


@contextlib.asynccontextmanager
async def answering(host: str) -> AsyncIterator[int]:
    """A server that answers whatever it is asked."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="there")

    app, port = web.Application(), unused_port()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port).start()
        yield port
    finally:
        await runner.cleanup()


async def answered_by(plane: Plane, model: Model) -> set[tuple[int, str]]:
    replies = [await plane.ask(model) for _ in range(20)]
    return {(one.status, one.route) for one in replies}


@WHO_ANSWERS
async def test_a_backend_is_reached_by_the_address_that_answers(
    plane: Plane, hosts: dict[str, str], answers: str
) -> None:
    async with answering(hosts[answers]) as port:
        model = await plane.serve(Wanted(away=100, host=f"{answers}.test", port=port))
        assert await answered_by(plane, model) == {(200, "remote")}
        await plane.withdraw(model)


@WHO_ANSWERS
async def test_a_token_endpoint_is_reached_by_the_address_that_answers(
    plane: Plane, hosts: dict[str, str], answers: str
) -> None:
    async with Tokens(hosts[answers], accepts="hush", port=unused_port()).running() as tokens:
        url = f"http://{answers}.test:{tokens.port}/token"
        auth = RemoteAuth(oauth=OAuth(client_id="me", client_secret=CLIENT, token_url=url))
        model = await plane.serve(Wanted(away=100, auth=auth, secrets=((CLIENT, SecretStr("hush")),)))
        await plane.all_go(model, "remote")  # each worker of Envoy has a token
        assert await answered_by(plane, model) == {(200, "remote")}
        assert tokens.asked
        await plane.change(model, replace(model.wanted, auth=None, secrets=()))
        await plane.withdraw(model)
