"""The servers of the demo take what they should, and nothing else, over real sockets."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestServer

from demo import model_server, token_server
from demo.bearer import is_good, token_until
from demo.completion import PATH, fault_of, name_of, request_body
from demo.credentials import CLIENT_ID, SERVER_NAME, Credentials
from demo.journal import Journal, flight_of, read_journal, spans_of, unfinished
from demo.manifests import REMOTE_PREFIX
from demo.model_server import Model
from tests.support.load import Answer, TracedRequest

BODY = request_body(TracedRequest(0.0, 5, 3))


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> Credentials:
    return Credentials.make(tmp_path_factory.mktemp("demo") / "credentials")


@pytest_asyncio.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with closing(Journal(tmp_path / "flight")) as journal:
        yield journal


def model(name: str, journal: Journal, remote: Credentials | None = None) -> web.Application:
    """Build a server with one place."""
    return model_server.application(Model(name, 1, journal).complete, remote)


async def test_a_replica_streams_and_what_finds_no_place_waits(session, journal, tmp_path):
    async with TestServer(model("local-1", journal)) as server:

        async def ask() -> Answer:
            async with session.post(server.make_url(PATH), data=BODY) as answer:
                return Answer(answer.status, {"x-beamlit-route": "local"}, await answer.read())

        one, other = await asyncio.gather(ask(), ask())

    assert (fault_of(one), fault_of(other)) == ("", "")
    first, second = sorted(end for _, end in spans_of(read_journal(tmp_path / "flight")).values())
    assert second - first >= 0.05  # what one answer takes at least, by the server's own clock
    assert max(step.number for step in flight_of(read_journal(tmp_path / "flight"))) == 2
    assert unfinished(read_journal(tmp_path / "flight")) == set()


async def test_an_answer_says_from_its_head_on_what_its_server_calls_it(session, journal, tmp_path):
    long = request_body(TracedRequest(0.0, 5, 300))
    async with (
        TestServer(model("local-1", journal)) as server,
        session.post(server.make_url(PATH), data=long) as answer,
    ):
        name = name_of(Answer(answer.status, {key.lower(): value for key, value in answer.headers.items()}, b""))
        assert unfinished(read_journal(tmp_path / "flight")) == {name}


async def test_the_remote_backend_asks_for_a_token_a_prefix_and_tls(session, journal, credentials):
    key = credentials.signing_key.encode()
    good = {"authorization": f"Bearer {token_until(time.time() + 60, key)}"}
    ended = {"authorization": f"Bearer {token_until(time.time() - 60, key)}"}
    server = TestServer(model("remote", journal, credentials), scheme="https")
    await server.start_server(ssl=credentials.for_server())
    async with server:

        async def ask(path: str, headers: dict[str, str]) -> int:
            tls = credentials.for_client()
            url = server.make_url(path)
            async with session.post(url, data=BODY, headers=headers, ssl=tls, server_hostname=SERVER_NAME) as answer:
                return answer.status

        assert await ask(f"{REMOTE_PREFIX}{PATH}", good) == 200
        assert await ask(f"{REMOTE_PREFIX}{PATH}", ended) == 401
        assert await ask(f"{REMOTE_PREFIX}{PATH}", {}) == 401
        assert await ask(PATH, good) == 404
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await session.get(server.make_url("/healthz"), server_hostname=SERVER_NAME)


async def test_a_token_is_for_those_who_know_the_secret(session, credentials):
    right = {"grant_type": "client_credentials", "client_id": CLIENT_ID, "client_secret": credentials.client_secret}
    async with TestServer(token_server.application(credentials)) as server:

        async def ask(**wrong: str) -> tuple[int, dict[str, str]]:
            async with session.post(server.make_url("/token"), data=right | wrong) as answer:
                return answer.status, await answer.json()

        status, given = await ask()
        assert status == 200
        assert is_good(f"Bearer {given['access_token']}", credentials.signing_key.encode(), time.time())
        assert await ask(client_secret="x") == (401, {"error": "invalid_client"})
        assert await ask(client_id="x") == (401, {"error": "invalid_client"})
        assert await ask(grant_type="password") == (400, {"error": "unsupported_grant_type"})
