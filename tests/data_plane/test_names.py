"""A name as it may be written, as it is resolved, and as servers are told of it."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import trustme
from aiohttp import web
from pydantic import SecretStr

from controller.intent.remotes import remotes_of
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Wanted
from tests.support.data_plane.plane import Plane
from tests.support.dns import NameServer
from tests.support.network import Network, unused_port
from tests.support.objects import a_model
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@dataclass
class Told:
    """A server over TLS with a certificate for a name: which names it is told."""

    name: str
    authority: trustme.CA = field(default_factory=trustme.CA)
    asked_for: set[str | None] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)

    async def start(self, host: str) -> tuple[web.AppRunner, int]:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(self.name).configure_cert(context)
        context.sni_callback = lambda _, name, __: self.asked_for.add(name)
        app, port = web.Application(), unused_port()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, host, port, ssl_context=context).start()
        return runner, port

    async def _answer(self, request: web.Request) -> web.Response:
        self.hosts.add(request.headers["host"])
        return web.Response(text="there")


async def test_a_name_with_a_dot_and_upper_case_is_verified_and_told_without_them(
    network: Network, backends: Backends, folder: Path
) -> None:
    server = Told("models.test")
    runner, port = await server.start(network.host(40))
    written = a_model().with_remote(f"Models.TEST.:{port}", scheme="https", tls={"caRef": {"name": "ca"}})
    (remote,) = remotes_of(written.intent(), None)
    assert remote.tls
    assert remote.tls.ca
    wanted = Wanted(
        away=100,
        host=remote.host,
        port=remote.port,
        authority=remote.authority,
        tls=remote.tls,
        secrets=((remote.tls.ca, SecretStr(server.authority.cert_pem.bytes().decode())),),
    )
    try:
        async with (
            NameServer.running(network.host(53), {"models.test": (network.host(40),)}) as names,
            Plane(network, backends, folder).running() as plane,
        ):
            await plane.join(change=names.asked_by_envoy())
            model = await plane.serve(wanted)
            await plane.all_go(model, "remote")  # its first check may have taken too long
            assert {(one.status, one.route) for one in [await plane.ask(model) for _ in range(5)]} == {(200, "remote")}
    finally:
        await runner.cleanup()
    assert server.asked_for == {"models.test"}
    assert server.hosts == {f"models.test:{port}"}


async def test_the_last_addresses_stay_while_a_name_server_fails_and_not_when_it_says_that_there_are_none(
    network: Network, backends: Backends, folder: Path
) -> None:
    there = (backends.remote.host,)
    names: dict[str, tuple[str, ...] | None] = {"kept.test": there, "gone.test": there}
    async with (
        NameServer.running(network.host(53), names) as server,
        Plane(network, backends, folder).running() as plane,
    ):
        await plane.join("named", change=server.asked_by_envoy())
        kept, gone = [await plane.serve(Wanted(away=100, host=name)) for name in names]
        for model in (kept, gone):
            await plane.all_go(model, "remote")
        names |= {"kept.test": None, "gone.test": ()}

        await until(lambda: server.asked["kept.test", True] >= 4, "it fails, in both families, more than once")
        await plane.all_go(gone, "local")
        assert {(await plane.ask(kept)).route for _ in range(10)} == {"remote"}
        names["gone.test"] = there
        await plane.all_go(gone, "remote")
