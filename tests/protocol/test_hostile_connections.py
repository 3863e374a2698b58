"""Connections of which nothing comes end, and keep nobody out for long."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc
import pytest
from envoy.service.discovery.v3.discovery_pb2 import DeltaDiscoveryRequest

from controller.api.timing import StreamTiming
from tests.support.protocol.attacks import DELTA, delta
from tests.support.protocol.xds_client import TOKEN, Client, Served, model
from tests.support.waiting import until
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER

ENDED = (grpc.aio.AioRpcError, asyncio.InvalidStateError)
"""What a client meets whose stream has ended: while it reads, or before it says anything."""
BEGINNING_OF_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextmanager
def connected(
    served: Served, count: int, says: bytes = b"", whence: str = "127.0.0.1"
) -> Iterator[Sequence[socket.socket]]:
    """So many connections of an address that say this, and then nothing more."""
    there = ("127.0.0.1", served.port)
    connections = [socket.create_connection(there, source_address=(whence, 0)) for _ in range(count)]
    try:
        for one in connections:
            one.sendall(says)
            one.setblocking(False)
        yield connections
    finally:
        for one in connections:
            one.close()


def still_open(connections: Sequence[socket.socket]) -> list[socket.socket]:
    return [one for one in connections if is_open(one)]


def is_open(connection: socket.socket) -> bool:
    try:
        while connection.recv(65536):
            pass
    except BlockingIOError:
        return True
    except ConnectionError:
        return False
    return False


async def asks(client: Client) -> None:
    await client.subscribe(ENDPOINT, "nothing")
    await (await client.expect(ENDPOINT, removed=("nothing",))).ack()


async def is_answered(served: Served) -> bool:
    try:
        await asks(served.delta())
    except ENDED:
        return False
    return True


HANDSHAKES = (1.0, 4.0, 16.0)
"""Seconds. On a busy machine an honest client takes long to begin, too: then everything is tried with more of them."""


async def answers_meanwhile(handshake: float) -> bool:
    """Whether honest clients are answered while connections are open that say nothing, which end."""
    served = await Served.start(timing=StreamTiming(handshake=handshake))
    served.publish(*model("m"))
    honest = served.delta()
    try:
        await asks(honest)
        with connected(served, 400) as connections:
            await asks(honest)
            new = served.delta("another")
            await asks(new)
            if not still_open(connections):
                return False  # It shows nothing: their time was over before.
            await until(lambda: not still_open(connections), "they are closed")
            await asks(honest)
    except ENDED:
        return False
    finally:
        await served.stop()
    return True


async def test_connections_that_say_nothing_end_and_others_are_answered_meanwhile():
    for handshake in HANDSHAKES:
        if await answers_meanwhile(handshake):
            return
    raise AssertionError("others are not answered meanwhile")


async def stays_meanwhile(unused: float) -> bool:
    """Whether a client with a stream is answered while, and after, connections end that have none."""
    served = await Served.start(timing=StreamTiming(unused=unused))
    served.publish(*model("m"))
    client = served.delta()
    try:
        await client.subscribe(CLUSTER)
        await client.receive()
        with connected(served, 10, BEGINNING_OF_HTTP2) as connections:
            await until(lambda: not still_open(connections), "they are closed")
        await asks(client)
    except ENDED:
        return False
    finally:
        await served.stop()
    return True


async def test_a_connection_without_a_stream_ends():
    for unused in (0.2, *HANDSHAKES):
        if await stays_meanwhile(unused):
            return
    raise AssertionError("a connection with a stream ends, too")


async def test_more_connections_than_there_may_be_are_closed_and_room_is_made_again():
    served = await Served.start(timing=StreamTiming(handshake=0.5), connections=10)
    served.publish(*model("m"))
    try:
        with connected(served, 30) as connections:
            await until(lambda: len(still_open(connections)) <= 10, "twenty are closed")
            await until(lambda: is_answered(served), "the others had their time, and somebody else is let in")
    finally:
        await served.stop()


@pytest.mark.parametrize("says", [b"", BEGINNING_OF_HTTP2], ids=["nothing", "HTTP/2"])
async def test_one_address_that_takes_all_connections_leaves_room_for_another_and_its_own_streams(says):
    served = await Served.start(timing=StreamTiming(handshake=600.0), connections=40)
    served.publish(*model("m"))
    before = served.delta("before")
    try:
        await asks(before)
        with connected(served, 80, says, "127.0.0.2") as connections:
            await until(lambda: len(still_open(connections)) < 40, "all connections were taken")
            await until(lambda: is_answered(served), "somebody else is let in")
            await until(lambda: len(still_open(connections)) <= 10, "a quarter of all are left to one address")
            assert len(still_open(connections)) == 10
            await asks(before)
    finally:
        await served.stop()


async def test_a_connection_has_a_hundred_streams_and_the_next_one_waits_for_one_to_end():
    served = await Served.start()
    served.publish(*model("m"))
    asked, more = delta(TOKEN, resource_names_subscribe=["nothing"]), delta(TOKEN, resource_names_subscribe=["nothing"])
    more.type_url = LISTENER
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
            calls = [channel.stream_stream(DELTA)() for _ in range(100)]
            assert all(await asyncio.gather(*(answered(call, asked) for call in calls)))
            late = asyncio.create_task(answered(channel.stream_stream(DELTA)(), asked))
            for call in calls[-3:]:
                # What the next one said on this connection came before.
                assert await answered(call, more)
            assert (late.done(), len(served.server.clients())) == (False, 100)
            calls[0].cancel()
            assert await late
    finally:
        await served.stop()


async def answered(call: grpc.aio.StreamStreamCall, asked: DeltaDiscoveryRequest) -> object:
    """Ask this, and return what comes of it."""
    await call.write(asked.SerializeToString())
    return await call.read()
