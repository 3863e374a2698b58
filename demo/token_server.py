"""A token endpoint: OAuth2 client credentials (RFC 6749, section 4.4), for one client."""

from __future__ import annotations

import time
from pathlib import Path

import click
from aiohttp import web

from demo.bearer import token_until
from demo.credentials import CLIENT_ID, Credentials

_LIFETIME = 20
"""Seconds: Envoy gets several during one demo."""


def application(credentials: Credentials) -> web.Application:
    """Build a server of `POST /token`."""

    async def give(request: web.Request) -> web.Response:
        form = await request.post()
        if form.get("grant_type") != "client_credentials":
            return web.json_response({"error": "unsupported_grant_type"}, status=400)
        if (form.get("client_id"), form.get("client_secret")) != (CLIENT_ID, credentials.client_secret):
            return web.json_response({"error": "invalid_client"}, status=401)
        token = token_until(time.time() + _LIFETIME, credentials.signing_key.encode())
        return web.json_response({"access_token": token, "token_type": "Bearer", "expires_in": _LIFETIME})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application()
    app.router.add_post("/token", give)
    app.router.add_get("/healthz", healthz)
    return app


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, required=True)
@click.option("--credentials", type=click.Path(path_type=Path), required=True, help="The folder that holds them.")
def main(host: str, port: int, credentials: Path) -> None:
    """Give out tokens."""
    web.run_app(application(Credentials.read(credentials)), host=host, port=port, access_log=None, print=None)


if __name__ == "__main__":
    main()
