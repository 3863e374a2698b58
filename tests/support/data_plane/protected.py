"""What a protected remote backend takes: authorities and certificates, Secrets, and an endpoint that gives tokens."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import trustme
from aiohttp import web

from tests.support.network import BACKEND_PORT
from tests.support.objects import a_secret

NAME = "models.test"


class Pki:
    """An authority, the certificate of a server of its, an expired one, and one of a client; and another authority
    altogether, with a certificate of the same server."""

    def __init__(self, folder: Path, *hosts: str) -> None:
        authority, self._other = trustme.CA(), trustme.CA()
        self.authority = authority.cert_pem.bytes().decode()
        self.other_authority = self._other.cert_pem.bytes().decode()
        self._client = authority.issue_cert("client.test")
        self.server_file, self.authority_file = folder / "server.pem", folder / "authority.pem"
        authority.issue_cert(NAME, *hosts).private_key_and_cert_chain_pem.write_to_path(str(self.server_file))
        authority.cert_pem.write_to_path(str(self.authority_file))
        self.other_server_file, self.expired_file = folder / "other-server.pem", folder / "expired.pem"
        self._other.issue_cert(NAME, *hosts).private_key_and_cert_chain_pem.write_to_path(str(self.other_server_file))
        past = datetime(2020, 1, 1, tzinfo=UTC), datetime(2020, 1, 2, tzinfo=UTC)
        expired = authority.issue_cert(NAME, *hosts, not_before=past[0], not_after=past[1])
        expired.private_key_and_cert_chain_pem.write_to_path(str(self.expired_file))

    def certificate(self, *, of_another_key: bool = False) -> dict[str, str]:
        """Give the client's certificate and its key as a Secret holds them."""
        key = self._other.issue_cert("x").private_key_pem if of_another_key else self._client.private_key_pem
        chain = b"".join(pem.bytes() for pem in self._client.cert_chain_pems)
        return {"tls.crt": chain.decode(), "tls.key": key.bytes().decode()}


def secret(name: str, values: dict[str, str]) -> dict[str, Any]:
    """Write a Secret in plain text."""
    return a_secret(name).in_namespace("default").holding(**values).raw


@dataclass
class Tokens:
    """A token endpoint (RFC 6749, section 4.4) that knows one client secret, and what it was asked."""

    host: str
    accepts: str
    lifetime: int = 3600
    port: int = BACKEND_PORT
    up: bool = True
    padding: int = 0
    """How many bytes an answer to an Envoy has besides. What the xDS server asks for itself is short all the same."""
    asked: list[str] = field(default_factory=list)
    """The client secrets that came, also the wrong ones."""
    issued: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/token"

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Tokens]:
        app = web.Application()
        app.router.add_post("/token", self._answer)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        try:
            await web.TCPSite(runner, self.host, self.port).start()
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        form = parse_qs(await request.text())
        self.asked.append(form["client_secret"][0])
        if not self.up:
            return web.Response(status=503)
        if form["grant_type"] != ["client_credentials"] or self.asked[-1] != self.accepts:
            return web.json_response({"error": "invalid_client"}, status=401)
        self.issued.append(f"token-{len(self.issued)}-of-{self.accepts}")
        padding = 0 if request.headers.get("user-agent") == "beamlit-xds-server" else self.padding
        token = {"access_token": self.issued[-1], "token_type": "bearer", "expires_in": self.lifetime}
        return web.json_response(token | {"padding": "x" * padding})
