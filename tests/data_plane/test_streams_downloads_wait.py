"""A client that does not read is waited for: Envoy holds no more of its answer than its buffers."""

from __future__ import annotations

import hashlib

import grpc
import pytest

from tests.support.data_plane.bodies import (
    HELD_BY_ENVOY,
    LARGE,
    LARGER,
    limited_or_not,
    unlimited,
    watched_memory,
)
from tests.support.data_plane.mutation import limits, nothing
from tests.support.data_plane.stage import SENT_ONCE, Stage
from tests.support.waiting import at_rest, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@limited_or_not
async def test_a_download_waits_for_a_client_that_does_not_read(stage: Stage, way: str, held: bool) -> None:
    model = await stage.plane.serve(stage.http.wanted(way, change=nothing if held else limits(unlimited)))
    probe = stage.probe()
    visit, digest = stage.visits[probe], hashlib.sha256()

    async with watched_memory(stage) as more:
        url = f"{model.url}v1/download?size={LARGER}"
        async with stage.session.get(url, headers={"probe": probe}) as answer:
            if not held:  # it comes to rest when all of it is in Envoy, however long that takes
                await until(lambda: visit.sent == LARGER, "all of the answer is under way")
            under_way = await at_rest(lambda: visit.sent)
            async for data in answer.content.iter_any():
                digest.update(data)

    assert (digest.hexdigest(), visit.sent) == (visit.digest, LARGER)
    assert (under_way < LARGER, max(more) < HELD_BY_ENVOY) == (held, held)


@pytest.mark.parametrize("way", SENT_ONCE)
async def test_a_grpc_stream_waits_for_a_client_that_does_not_read(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.rpc.wanted(way))
    probe = stage.probe()
    visit = stage.visits[probe]

    async with watched_memory(stage) as more, stage.channel(model) as channel:
        call = channel.unary_stream("/any.Service/Flood")(b"%d" % (LARGE), metadata=(("probe", probe),))
        first = await call.read()
        under_way = await at_rest(lambda: visit.sent)
        received = len(first)
        while (data := await call.read()) is not grpc.aio.EOF:
            received += len(data)

    assert received == LARGE
    assert under_way < LARGE
    assert max(more) < HELD_BY_ENVOY
