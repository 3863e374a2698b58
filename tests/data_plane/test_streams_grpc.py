"""gRPC over HTTP/2 without TLS: messages, metadata, statuses and trailers, whichever way the call took."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from tests.support.data_plane.stage import SENT_ONCE, WAYS, Stage
from tests.support.data_plane.stream_grpc import BINARY, STATUSES
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

SERVICE = "/inference.GRPCInferenceService"
ways = pytest.mark.parametrize("way", WAYS)


async def ended_well(call: Any, side: str) -> None:
    """Check everything that came with the messages of a call."""
    first, last = await call.initial_metadata(), await call.trailing_metadata()
    assert await call.code() is grpc.StatusCode.OK
    assert first["x-beamlit-route"] == side
    assert first["x-served-by"].startswith(side)
    assert first["x-bytes-bin"] == BINARY
    assert last["x-cost"] == f"42 of {first['x-served-by']}"
    assert last["x-detail-bin"] == BINARY


@ways
async def test_one_answer_with_its_trailers(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.rpc.wanted(way))

    async with stage.channel(model) as channel:
        for size in (0, 1, 100_000):
            call = channel.unary_unary(f"{SERVICE}/Echo")(b"x" * size, metadata=(("probe", stage.probe()),), timeout=60)

            assert await call == b"x" * size
            await ended_well(call, WAYS[way])


@ways
async def test_a_stream_of_answers_arrives_one_by_one(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.rpc.wanted(way))
    probe = stage.probe()
    script = stage.visits[probe].script

    async with stage.channel(model) as channel:
        call = channel.unary_stream(f"{SERVICE}/Lines")(b"", metadata=(("probe", probe),), timeout=60)
        for number in range(20):
            script.put_nowait(f"token {number}")  # the server had nothing more to send before
            assert await call.read() == b"token %d" % number
        script.put_nowait(None)
        assert await call.read() is grpc.aio.EOF
        await ended_well(call, WAYS[way])


@ways
async def test_both_sides_talk_in_turn(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.rpc.wanted(way))

    async with stage.channel(model) as channel:
        call = channel.stream_stream(f"{SERVICE}/Talk")(metadata=(("probe", stage.probe()),), timeout=60)
        for number in range(20):
            await call.write(b"%d" % number)
            assert await call.read() == b"heard %d" % number
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        await ended_well(call, WAYS[way])


@pytest.mark.parametrize("way", SENT_ONCE)
async def test_calls_of_one_connection_are_split(stage: Stage, way: str) -> None:
    """A connection of gRPC stays; the split is of calls all the same, and each goes to the server that it should."""
    model = await stage.plane.serve(stage.rpc.wanted(way, away=50))

    async with stage.channel(model) as channel:

        async def side() -> str:
            call = channel.unary_unary(f"{SERVICE}/Echo")(b"x", metadata=(("probe", stage.probe()),), timeout=60)
            await call
            await ended_well(call, side := (await call.initial_metadata())["x-beamlit-route"])
            return str(side)

        sides = await asyncio.gather(*(side() for _ in range(100)))

    # 5 sigma of 100 fair tosses.
    assert abs(sides.count("local") - 50) <= 25


@pytest.mark.parametrize("method", ["Status", "Late"])
@pytest.mark.parametrize("way", SENT_ONCE)
async def test_errors_pass_as_they_are_and_are_not_sent_again(stage: Stage, way: str, method: str) -> None:
    """With and without a message before: in the head of the answer ("Trailers-Only") or in its trailers.

    But UNAVAILABLE in the head, which says what 503 does.
    """
    model = await stage.plane.serve(stage.rpc.wanted(way))
    reason = {"Status": "for a reason: 100 % ü", "Late": "after one"}[method]

    async with stage.channel(model) as channel:
        for number in sorted(set(STATUSES) - {0} - ({14} if method == "Status" else set())):
            probe = stage.probe()
            call = channel.unary_stream(f"{SERVICE}/{method}")(b"%d" % number, metadata=(("probe", probe),), timeout=60)
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                messages = [message async for message in call]
                assert messages == [b"one"] * (method == "Late")

            error = raised.value
            assert (error.code(), error.details()) == (STATUSES[number], reason)
            assert error.trailing_metadata()["x-cost"].startswith(f"42 of {WAYS[way]}")
            assert error.trailing_metadata()["x-detail-bin"] == BINARY
            assert stage.visits.attempts[probe] == 1


@pytest.mark.parametrize("way", SENT_ONCE)
async def test_a_call_to_a_server_that_says_unavailable_is_sent_once_more_to_the_other_side(
    stage: Stage, way: str
) -> None:
    model = await stage.plane.serve(stage.rpc.wanted(way))
    side = WAYS[way]

    async with stage.channel(model) as channel:
        call, probe = channel.unary_unary(f"{SERVICE}/Status"), stage.probe()
        answer = await call(f"14 {side}".encode(), metadata=(("probe", probe),), timeout=60)
        assert answer.startswith(b"remote" if side == "local" else b"local")
        assert stage.visits.attempts[probe] == 2

        probe = stage.probe()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call(b"14", metadata=(("probe", probe),), timeout=60)
        assert (raised.value.code(), raised.value.details()) == (STATUSES[14], "for a reason: 100 % ü")
        assert stage.visits.attempts[probe] == 2


async def test_replicas_that_die_with_calls_open_end_them_and_get_no_more(stage: Stage) -> None:
    model = await stage.plane.serve(stage.rpc.wanted())

    async with stage.channel(model) as channel:
        talk = channel.stream_stream(f"{SERVICE}/Talk")(metadata=(("probe", stage.probe()),), timeout=60)
        await talk.write(b"here")
        assert await talk.read() == b"heard here"
        for server in stage.rpc.local:
            await server.stop()
        try:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await talk.read()
            # What began is the caller's to begin again: it may have had effects.
            assert raised.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
            sides = [await _side_of(stage, channel) for _ in range(20)]
        finally:
            for server in stage.rpc.local:
                await server.start()
        assert sides == ["remote"] * 20

        async def is_local() -> bool:
            return await _side_of(stage, channel) == "local"

        await until(is_local, "calls go to the replicas again")


async def _side_of(stage: Stage, channel: grpc.aio.Channel) -> str:
    """Make a call of each kind; all must be answered by one side."""
    sides = set()
    metadata = (("probe", stage.probe()),)
    echo = channel.unary_unary(f"{SERVICE}/Echo")(b"x", metadata=metadata, timeout=60)
    assert await echo == b"x"
    ticks = channel.unary_stream(f"{SERVICE}/Ticks")(b"", metadata=metadata, timeout=60)
    assert await ticks.read() == b"0"
    talk = channel.stream_stream(f"{SERVICE}/Talk")(metadata=metadata, timeout=60)
    await talk.write(b"x")
    assert await talk.read() == b"heard x"
    for call in (echo, ticks, talk):
        sides.add((await call.initial_metadata())["x-beamlit-route"])
        call.cancel()
    return "/".join(sorted(sides))


@pytest.mark.parametrize("way", WAYS)
async def test_a_stream_of_requests_arrives_whole(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.rpc.wanted(way))
    part = BINARY * 256

    async def parts() -> AsyncIterator[bytes]:
        for _ in range(48):  # 3 MiB, which may be sent again
            yield part

    async with stage.channel(model) as channel:
        call = channel.stream_unary(f"{SERVICE}/Upload")(parts(), metadata=(("probe", stage.probe()),), timeout=60)
        digest = hashlib.sha256(part * 48).hexdigest()
        assert await call == f"{48 * len(part)} {digest}".encode()
        await ended_well(call, WAYS[way])
