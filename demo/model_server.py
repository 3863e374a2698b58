"""A model server: answers JSON after about as long as it says, and tells its name. One process each.

It reads `max_tokens` of the request and takes 20 ms and 0.3 ms per token, 100 ms at most.
"""

from __future__ import annotations

import asyncio
import json

import click
from aiohttp import web

_FIRST_TOKEN = 0.020
_PER_TOKEN = 0.0003
_LONGEST = 0.100


def generation_time(tokens: int) -> float:
    """Return how long an answer of that many tokens takes, in seconds."""
    return min(_FIRST_TOKEN + _PER_TOKEN * max(tokens, 0), _LONGEST)


def application(name: str, prefix: str) -> web.Application:
    """Build a server that answers every path below `prefix`, and /healthz."""

    async def generate(request: web.Request) -> web.Response:
        try:
            tokens = int(json.loads(await request.read())["max_tokens"])
        except (ValueError, KeyError, TypeError):
            return web.json_response({"error": "expected JSON with max_tokens"}, status=400)
        await asyncio.sleep(generation_time(tokens))
        return web.json_response({"servedBy": name, "generatedTokens": tokens})

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=16 * 2**20)
    app.router.add_route("*", "/healthz", healthz)
    app.router.add_route("*", f"{prefix}/{{path:.*}}", generate)
    return app


@click.command()
@click.option("--name", required=True, help="What it answers as servedBy.")
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=int, required=True)
@click.option("--prefix", default="", help="The path prefix it serves; other paths are 404.")
def main(name: str, host: str, port: int, prefix: str) -> None:
    """Serve one model."""
    web.run_app(application(name, prefix), host=host, port=port, access_log=None, print=None)


if __name__ == "__main__":
    main()
