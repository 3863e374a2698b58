"""Server-sent events: each arrives as it is sent, whichever way the request took."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator

import aiohttp
import pytest

from controller.api.contract.credentials import OAuth, RemoteAuth
from tests.support.data_plane.model import Model
from tests.support.data_plane.protected import Tokens
from tests.support.data_plane.stage import KEY_OF_SECRET, SENT_ONCE, WAYS, Stage
from tests.support.data_plane.visits import Visit
from tests.support.network import Network
from tests.support.waiting import time_limit, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

CHUNK = '{{"object": "chat.completion.chunk", "choices": [{{"index": 0, "delta": {{"content": "token {}"}}}}]}}'


async def told_one_by_one(stage: Stage, model: Model, events: int = 20) -> tuple[str, Visit]:
    """Ask for events; let the server send each only when the one before has arrived. Return the side, and the visit."""
    probe = stage.probe()
    visit = stage.visits[probe]
    sent = [CHUNK.format(number) for number in range(events)] + ["[DONE]"]
    visit.script.put_nowait(sent[0])
    answer = await stage.session.post(f"{model.url}v1/events", headers={"probe": probe}, json={"stream": True})
    async with time_limit(60), answer:
        arriving, arrived = _events_of(answer), []
        for following in [*sent[1:], None]:
            arrived.append(await anext(arriving))
            visit.script.put_nowait(following)
        assert [event async for event in arriving] == []
    assert arrived == sent
    assert (answer.status, answer.headers["content-type"]) == (200, "text/event-stream")
    assert answer.headers.get("content-length") is None
    side: str = answer.headers["x-beamlit-route"]
    assert visit.served_by.startswith(side)
    return side, visit


async def _events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[str]:
    while event := await answer.content.readline():
        assert await answer.content.readline() == b"\n"
        yield event.decode().removeprefix("data: ").removesuffix("\n")


@pytest.mark.parametrize("way", WAYS)
async def test_each_event_arrives_before_the_next_is_sent(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.http.wanted(way))

    side, visit = await told_one_by_one(stage, model)

    assert side == WAYS[way]
    keys = [value for name, value in visit.headers if name == "x-key"]
    assert keys == (["hush"] if way == "guarded" else [])


async def test_events_of_a_backend_with_oauth_arrive_one_by_one(stage: Stage, network: Network) -> None:
    async with Tokens(network.host(30), accepts="hush").running() as tokens:
        auth = RemoteAuth(oauth=OAuth(client_id="me", client_secret=KEY_OF_SECRET, token_url=tokens.url))
        model = await stage.plane.serve(stage.http.wanted("remote", auth=auth))

        async def has_a_token() -> bool:
            # Several connections in a row: of Envoy's workers one has it a moment after another.
            sides = {(await told_one_by_one(stage, model, 1))[0] for _ in range(10)}
            return bool(tokens.issued) and sides == {"remote"}

        await until(has_a_token, "Envoy has a token")
        side, visit = await told_one_by_one(stage, model)

    assert side == "remote"
    # The first, unless that came too late for Envoy.
    assert dict(visit.headers)["authorization"] in [f"Bearer {issued}" for issued in tokens.issued]


async def test_streams_of_events_are_split_like_other_requests(stage: Stage) -> None:
    model = await stage.plane.serve(stage.http.wanted(away=50))

    told = await asyncio.gather(*(told_one_by_one(stage, model, 10) for _ in range(100)))

    # 5 sigma of 100 fair tosses.
    assert abs(Counter(side for side, _ in told)["local"] - 50) <= 25


@pytest.mark.parametrize("way", SENT_ONCE)
async def test_a_stream_that_breaks_off_is_not_sent_again(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.http.wanted(way))
    probe = stage.probe()
    stage.visits[probe].script.put_nowait("the first")

    async with stage.session.get(f"{model.url}v1/events", headers={"probe": probe}) as answer:
        assert await answer.content.readline() == b"data: the first\n"
        stage.visits[probe].script.put_nowait("break")
        with pytest.raises(aiohttp.ClientPayloadError):
            async with time_limit(60):
                await answer.content.read()

    assert stage.visits.attempts[probe] == 1
