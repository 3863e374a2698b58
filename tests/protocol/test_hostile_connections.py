"""Connections of which nothing comes end, and keep nobody out for long."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import grpc

from controller.api.timing import StreamTiming
from tests.support.protocol.xds_client import Client, Served, model
from tests.support.waiting import until
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT

BEGINNING_OF_HTTP2 = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])


@contextmanager
def connected(served: Served, count: int, says: bytes = b"") -> Iterator[Sequence[socket.socket]]:
    """So many connections that say this, and then nothing more."""
    connections = [socket.create_connection(("127.0.0.1", served.port)) for _ in range(count)]
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
    except grpc.aio.AioRpcError:
        return False
    return True


async def test_connections_that_say_nothing_end_and_others_are_answered_meanwhile():
    served = await Served.start(timing=StreamTiming(handshake=1.0))
    served.publish(*model("m"))
    honest = served.delta()
    try:
        await asks(honest)
        with connected(served, 400) as connections:
            await asks(honest)
            new = served.delta("another")
            await asks(new)
            assert still_open(connections), "the test shows something"
            await until(lambda: not still_open(connections), "they are closed")
            await asks(honest)
    finally:
        await served.stop()


async def test_a_connection_without_a_stream_ends():
    served = await Served.start(timing=StreamTiming(unused=0.2))
    served.publish(*model("m"))
    client = served.delta()
    try:
        await client.subscribe(CLUSTER)
        await client.receive()
        with connected(served, 10, BEGINNING_OF_HTTP2) as connections:
            await until(lambda: not still_open(connections), "they are closed")
        await asks(client)
    finally:
        await served.stop()


async def test_more_connections_than_there_may_be_are_closed_and_room_is_made_again():
    served = await Served.start(timing=StreamTiming(handshake=0.5), connections=10)
    served.publish(*model("m"))
    try:
        with connected(served, 30) as connections:
            await until(lambda: len(still_open(connections)) <= 10, "twenty are closed")
            await until(lambda: is_answered(served), "the others had their time, and somebody else is let in")
    finally:
        await served.stop()
