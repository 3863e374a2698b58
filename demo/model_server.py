"""A model server: streams as many tokens as it is asked for, a few requests at a time. One process each.

What is more than its places waits, so that the client sees it as time to the first byte: the answer begins with the
first token. As the remote backend it speaks TLS, serves below a path prefix, and asks for a bearer token.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import click
from aiohttp import web

from demo.bearer import is_good
from demo.completion import ANSWER_HEADER, PATH, last_event, length_of, time_of_token, token_events, tokens_asked_for
from demo.credentials import Credentials
from demo.journal import Journal
from demo.manifests import REMOTE_PREFIX

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Model:
    """The places of one server, and the answers it gives."""

    def __init__(self, name: str, places: int, journal: Journal) -> None:
        self._name = name
        self._places = asyncio.Semaphore(places)
        self._journal = journal

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """Answer one request as soon as there is a place for it."""
        try:
            tokens = length_of(tokens_asked_for(await request.read()))
        except ValueError as error:
            return web.json_response({"error": {"message": str(error)}}, status=400)
        name = uuid4().hex
        with self._journal.answering(name) as free:
            async with self._places:
                answer = await self._stream(request, name, tokens)
            # The place is free before anybody can know of it and send the next request.
            free()
            await answer.write_eof(last_event(self._name, name, tokens))
        return answer

    async def _stream(self, request: web.Request, name: str, tokens: int) -> web.StreamResponse:
        """Send everything but the last event."""
        clock = asyncio.get_running_loop().time
        begin = clock()
        headers = {"content-type": "text/event-stream", "cache-control": "no-cache", ANSWER_HEADER: name}
        answer = web.StreamResponse(headers=headers)
        for token, event in enumerate(token_events(self._name, name, tokens)):
            await asyncio.sleep(max(0.0, begin + time_of_token(token) - clock()))
            if not answer.prepared:
                await answer.prepare(request)
            await answer.write(event)
        return answer


def application(complete: Handler, remote: Credentials | None) -> web.Application:
    """Build a server of completions and /healthz; as the `remote` one below a prefix, for those who have a token."""

    async def guarded(request: web.Request) -> web.StreamResponse:
        authorization = request.headers.get("authorization", "")
        if remote is None or is_good(authorization, remote.signing_key.encode(), time.time()):
            return await complete(request)
        return web.json_response({"error": {"message": "no good token"}}, status=401)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok\n")

    app = web.Application(client_max_size=16 * 2**20)
    app.router.add_get("/healthz", healthz)
    app.router.add_post(f"{REMOTE_PREFIX if remote else ''}{PATH}", guarded)
    return app


@click.command()
@click.option("--name", required=True, help="What it answers as system_fingerprint.")
@click.option("--address", required=True, metavar="HOST:PORT")
@click.option("--places", type=int, required=True, help="How many requests it works on at a time.")
@click.option("--journal", type=click.Path(path_type=Path), required=True, help="Where it writes what is in flight.")
@click.option(
    "--remote",
    type=click.Path(path_type=Path),
    help="Be the remote backend; in this folder are its certificate and the key of the tokens that it asks for.",
)
def main(name: str, address: str, places: int, journal: Path, remote: Path | None) -> None:
    """Serve one model."""
    host, _, port = address.rpartition(":")
    credentials = Credentials.read(remote) if remote else None
    tls = credentials.for_server() if credentials else None
    with closing(Journal(journal)) as written:
        app = application(Model(name, places, written).complete, credentials)
        web.run_app(app, host=host, port=int(port), ssl_context=tls, access_log=None, print=None)


if __name__ == "__main__":
    main()
