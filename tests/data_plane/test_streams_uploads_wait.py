"""A server that does not read is waited for: Envoy holds no more of its request than its buffers."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.data_plane.bodies import (
    HELD_BY_ENVOY,
    LARGE,
    LARGER,
    Sent,
    limited_or_not,
    unlimited,
    watched_memory,
)
from tests.support.data_plane.mutation import limits, nothing
from tests.support.data_plane.stage import SENT_ONCE, Stage
from tests.support.waiting import at_rest, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@limited_or_not
async def test_an_upload_waits_for_a_server_that_does_not_read(stage: Stage, way: str, held: bool) -> None:
    model = await stage.plane.serve(stage.http.wanted(way, change=nothing if held else limits(unlimited)))
    body, probe = Sent(LARGER), stage.probe()

    async with watched_memory(stage) as more:
        posting = asyncio.ensure_future(
            stage.session.post(f"{model.url}v1/upload?wait", headers={"probe": probe}, data=body)
        )
        if not held:  # it comes to rest when all of it is in Envoy, however long that takes
            await until(lambda: body.sent == LARGER, "all of the request is under way")
        under_way = await at_rest(lambda: body.sent)
        stage.visits[probe].go_on.set()
        async with await posting as answer:
            received = json.loads(await answer.text())

    assert received["sha256"] == body.sha256
    assert (under_way < LARGER, max(more) < HELD_BY_ENVOY) == (held, held)


@pytest.mark.parametrize("way", SENT_ONCE)
async def test_a_grpc_upload_waits_for_a_server_that_does_not_read(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.rpc.wanted(way))
    body, probe = Sent(LARGE), stage.probe()

    async with watched_memory(stage) as more, stage.channel(model) as channel:
        metadata = (("probe", probe), ("wait", "1"))
        call = channel.stream_unary("/any.Service/Upload")(aiter(body), metadata=metadata)
        under_way = await at_rest(lambda: body.sent)
        stage.visits[probe].go_on.set()
        assert await call == f"{LARGE} {body.sha256}".encode()

    assert under_way < LARGE
    assert max(more) < HELD_BY_ENVOY
