"""WebSockets: messages, pings and closing codes both ways, whichever way the upgrade took, and after a failover."""

from __future__ import annotations

import aiohttp
import pytest
from aiohttp import WSMsgType

from tests.support.data_plane.model import Model
from tests.support.data_plane.stage import SENT_ONCE, WAYS, Stage
from tests.support.waiting import in_time, time_limit, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def opened(stage: Stage, model: Model, query: str = "") -> tuple[aiohttp.ClientWebSocketResponse, str, str]:
    """Open a socket; return it, the side that took it, and the probe."""
    probe = stage.probe()
    socket = await stage.session.ws_connect(
        f"{model.url}v1/socket{query}", headers={"probe": probe}, max_msg_size=0, protocols=()
    )
    return socket, socket._response.headers["x-beamlit-route"], probe


@pytest.mark.parametrize("way", WAYS)
async def test_both_sides_send_when_they_like(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.http.wanted(way))
    large = bytes(range(256)) * 4096 * 3

    async with time_limit(60):
        socket, side, probe = await opened(stage, model, "?ticks")
        assert side == WAYS[way]
        ticks, texts, blobs = [], [], []
        for number in range(10):
            await socket.send_str(str(number))
        await socket.send_bytes(large)
        while len(ticks) < 5 or not blobs:
            message = await socket.receive()
            if message.type == WSMsgType.BINARY:
                blobs.append(message.data)
            else:
                (texts if message.data.startswith("echo") else ticks).append(message.data)
        await socket.ping(b"still there?")
        await socket.close(code=4001, message=b"enough")

    assert ticks == [str(number) for number in range(len(ticks))]
    assert texts == [f"echo {number}" for number in range(10)]
    assert blobs == [large]
    visit = stage.visits[probe]
    await in_time(visit.over.wait(), "the visit ends", within=60)
    assert visit.closed_with == 4001
    assert visit.served_by.startswith(WAYS[way])


@pytest.mark.parametrize("way", SENT_ONCE)
async def test_the_closing_code_of_the_server_arrives(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.http.wanted(way))

    async with time_limit(60):
        socket, _, _ = await opened(stage, model)
        await socket.send_str("close 4002")
        message = await socket.receive()

    assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 4002, "as you like")


async def test_a_socket_of_a_replica_that_dies_ends_and_a_new_one_goes_to_the_remote(stage: Stage) -> None:
    model = await stage.plane.serve(stage.http.wanted())

    async with time_limit(60):
        first, side, _ = await opened(stage, model, "?ticks")
        assert side == "local"
        assert (await first.receive()).data == "0"
        for server in stage.http.local:
            await server.stop()
        try:
            while (message := await first.receive()).type == WSMsgType.TEXT:
                pass
            assert message.type in (WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.ERROR)
            second, side, _ = await opened(stage, model)
            assert side == "remote"
            await second.send_str("hello")
            assert (await second.receive()).data == "echo hello"
        finally:
            for server in stage.http.local:
                await server.start()

        async def is_local() -> bool:
            socket, side, _ = await opened(stage, model)
            await socket.close()
            return side == "local"

        await until(is_local, "sockets go to the replicas again")
        # The one that went to the remote stays there, and open.
        await second.send_str("still here")
        assert (await second.receive()).data == "echo still here"
        await second.close()


@pytest.mark.parametrize("way", WAYS)
async def test_a_refused_upgrade_is_an_answer_like_any_other(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.http.wanted(way))
    probe = stage.probe()

    with pytest.raises(aiohttp.WSServerHandshakeError) as raised:
        await stage.session.ws_connect(f"{model.url}v1/refused", headers={"probe": probe})

    assert (raised.value.status, stage.visits.attempts[probe]) == (403, 1)
    assert raised.value.headers and raised.value.headers["x-beamlit-route"] == WAYS[way]
