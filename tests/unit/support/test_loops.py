"""Every way a request can fail is seen, over real sockets to a small server in the test's own loop."""

import asyncio
import math
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from tests.support.connections import accepting
from tests.support.load import Traffic, closed_loop, open_loop
from tests.support.network import unused_port

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-beamlit-route: local\r\n\r\nok"
CHUNKED_BEGUN = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nx-served-by: a\r\n\r\n3\r\nhel\r\n2\r\nl"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(answer: Handler) -> AsyncIterator[tuple[str, list[int]]]:
    """Serve one answer per request; the list has one entry per connection: how many requests it carried."""
    connections: list[int] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append(0)
        number = len(connections) - 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                await reader.readexactly(int(length or 0))
                connections[number] += 1
                await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    async with accepting(connected) as (port, _):
        yield f"http://127.0.0.1:{port}/model?x=1", connections


def writes(wire: bytes, then_close: bool = False, after: float = 0.0) -> Handler:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if after:
            await asyncio.sleep(after)
        writer.write(wire)
        if then_close:
            writer.close()

    return answer


async def many_turns_of_the_loop() -> None:
    """Wait a fifth of a second in which the client, in the same loop, has its turn at once however busy the machine."""
    for _ in range(20):
        await asyncio.sleep(0.01)


async def resets(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    # A socket closed without lingering sends RST instead of FIN.
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def test_clients_keep_their_connections():
    async with serving(writes(GOOD)) as (url, connections):
        report = await closed_loop(url, 4, 100)
    assert report.summary.requests == report.summary.local == 100
    assert report.summary.failed == 0
    assert len(connections) <= 4
    assert {sample.size for sample in report.samples} == {2}


async def test_clients_that_send_every_so_often_begin_one_after_another():
    async with serving(writes(GOOD)) as (url, _):
        report = await closed_loop(url, 4, 12, every=0.2)
    starts = [sample.start for sample in report.samples]
    assert all(start >= number * 0.05 - 0.001 for number, start in enumerate(starts))


async def test_or_have_a_new_one_for_each_request():
    async with serving(writes(GOOD)) as (url, connections):
        report = await closed_loop(url, 4, 20, Traffic(keepalive=False))
    assert report.summary.failed == 0
    assert connections == [1] * 20


async def test_arrivals_do_not_wait_for_answers():
    all_four = asyncio.Barrier(4)

    async def answers_none_before_the_last(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await all_four.wait()
        writer.write(GOOD)

    async with serving(answers_none_before_the_last) as (url, connections):
        report = await open_loop(url, [0.0, 0.01, 0.02, 0.03])
    assert report.summary.failed == 0
    assert len(connections) == 4
    assert [sample.start for sample in report.samples] == [0.0, 0.01, 0.02, 0.03]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (resets, "ConnectionResetError"),
        (writes(b"", then_close=True), "closed"),
        (writes(GOOD[:-1], then_close=True), "truncated"),
        (writes(b"HTTP/1.1 503 no\r\ncontent-length: 0\r\n\r\n"), "status 503"),
        (writes(b"HTTP/1.1 404 no\r\ncontent-length: 0\r\n\r\n"), "status 404"),
        (writes(GOOD, after=5.0), "timeout"),
        (writes(b"nonsense\r\n\r\n"), "not HTTP/1.1"),
    ],
)
async def test_every_failure_is_seen(answer, error):
    async with serving(answer) as (url, _):
        report = await closed_loop(url, 1, 1, Traffic(method="GET", timeout=0.3 if error == "timeout" else None))
    assert report.errors == {error: 1}


def test_who_is_held_back_by_a_test_does_not_give_up_meanwhile():
    assert Traffic().timeout is None


async def test_a_request_is_never_sent_twice():
    async with serving(resets) as (url, connections):
        await closed_loop(url, 1, 5, Traffic(method="GET"))
    assert connections == [1] * 5


async def test_nobody_listens():
    report = await open_loop(f"http://127.0.0.1:{unused_port()}/", [0.0])
    assert report.errors == {"ConnectionRefusedError": 1}


async def test_a_wrong_body_is_a_failure():
    traffic = Traffic(fault=lambda answer: "" if answer.body == b"yes" else "wrong body")
    async with serving(writes(GOOD)) as (url, _):
        report = await closed_loop(url, 1, 2, traffic)
    assert report.errors == {"wrong body": 2}


async def test_the_first_byte_is_told_from_the_last_and_the_answer_is_noted():
    async def in_two_parts(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GOOD[:-1])
        await many_turns_of_the_loop()
        writer.write(GOOD[-1:])

    traffic = Traffic(note=lambda answer: answer.body.decode())
    async with serving(in_two_parts) as (url, _):
        report = await open_loop(url, [0.0, 0.05], traffic)
    for sample in report.samples:
        assert sample.note == "ok"
        assert 0 <= sample.late <= sample.first_byte <= sample.latency - 0.15


async def test_urls_take_turns_and_samples_are_handed_over_as_they_end():
    seen = []
    async with serving(writes(GOOD)) as (one, first), serving(writes(GOOD)) as (two, second):
        await closed_loop([one, two], 1, 10, Traffic(on_sample=seen.append))
    assert (sum(first), sum(second), len(seen)) == (5, 5, 10)


async def test_a_closed_loop_can_be_stopped():
    stop = asyncio.Event()
    async with serving(writes(GOOD)) as (url, _):
        report = await closed_loop(url, 2, 1_000_000, Traffic(on_sample=lambda _: stop.set()), stop)
    assert report.summary.failed == 0
    assert report.summary.requests <= 3


async def test_only_plain_http():
    with pytest.raises(ValueError, match="not an http"):
        await open_loop("https://127.0.0.1:1/", [0.0])


async def test_the_first_byte_is_timed_apart_from_the_last():
    async def streams(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(GOOD[:-2])
        await many_turns_of_the_loop()
        writer.write(GOOD[-2:])

    async with serving(streams) as (url, _):
        (sample,) = (await open_loop(url, [0.0])).samples
    assert 0.15 <= sample.latency - sample.first_byte < sample.latency


async def test_an_answer_that_broke_off_had_begun():
    async with serving(writes(GOOD[:-1], then_close=True)) as (url, _):
        (begun,) = (await open_loop(url, [0.0])).samples
    async with serving(resets) as (url, _):
        (nothing,) = (await open_loop(url, [0.0])).samples
    assert (begun.error, begun.first_byte > 0) == ("truncated", True)
    assert math.isnan(nothing.first_byte)


async def test_of_an_answer_that_broke_off_is_noted_what_had_come():
    async def breaks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(CHUNKED_BEGUN)
        await asyncio.sleep(0.05)
        await resets(reader, writer)

    traffic = Traffic(note=lambda answer: f"{answer.headers['x-served-by']} {answer.body.decode()}")
    for answer in (breaks, writes(CHUNKED_BEGUN, then_close=True)):
        async with serving(answer) as (url, _):
            (sample,) = (await open_loop(url, [0.0], traffic)).samples
        assert (sample.status, sample.note) == (0, "a hel")
    async with serving(writes(CHUNKED_BEGUN[:20], then_close=True)) as (url, _):
        (sample,) = (await open_loop(url, [0.0], traffic)).samples
    assert (sample.error, sample.note) == ("truncated", "")
