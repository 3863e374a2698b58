"""Clients that connect and say nothing, or nothing more: how long a connection is kept that carries no request.

A stream that is silent is not one of them, however long that lasts.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio
import trustme

from controller.api.contract.entrance import EntranceTls
from controller.api.timing import REAL
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.never_answering import never_answering
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.raw_clients import Http2Client, connected, vanished
from tests.support.entrance import Trust, a_pair
from tests.support.network import Network
from tests.support.waiting import in_time, until

pytestmark = pytest.mark.asyncio(loop_scope="module")

REQUEST = b"GET /v1/generate HTTP/1.1\r\nhost: a\r\n\r\n"


@pytest_asyncio.fixture(loop_scope="module")
async def silent(network: Network) -> AsyncIterator[Wanted]:
    """A model whose one replica takes every request and says nothing."""
    async with never_answering(network.host(60), reads=False) as replicas:
        yield Wanted(remote=False, replicas=replicas)


@contextlib.asynccontextmanager
async def saying(model: Model, words: bytes = b"") -> AsyncIterator[tuple[asyncio.Task[bytes], asyncio.StreamWriter]]:
    """Connect, say this and no more; give what comes until the Envoy ends the connection."""
    reader, writer = await connected(model)
    writer.write(words)
    ended = asyncio.create_task(reader.read())
    try:
        yield ended, writer
    finally:
        ended.cancel()
        writer.transport.abort()


async def counted(plane: Plane, model: Model) -> tuple[int, int]:
    """Count the connections of its clients, and the requests that wait at its replica."""
    connections = await plane.envoy.stat(f"http.{model.key}.downstream_cx_active")
    return connections, await plane.envoy.stat(f"cluster.{model.local_cluster}.upstream_rq_active")


async def test_a_connection_ends_that_nothing_is_asked_on_and_a_silent_stream_does_not(
    plane: Plane, silent: Wanted
) -> None:
    model = await plane.serve(replace(silent, timing=replace(REAL.gateway, unused_by_clients=1.0)))

    async with saying(model, REQUEST) as (answer, _), Http2Client.of(model) as client:
        await client.begin()
        await plane.until_in_flight(model, 2)
        # One after the other, so that the streams are silent for longer than a connection may be unused.
        for _ in range(2):
            async with saying(model) as (ended, _), Http2Client.of(model) as unused:
                assert await in_time(ended, "the connection is closed") == b""
                await until(lambda unused=unused: unused.told_to_go, "the client of HTTP/2 is told to go")

        assert (answer.done(), client.resets, client.ended) == (False, 0, False)
        assert (await counted(plane, model))[1] == 2


async def test_a_client_that_vanished_is_found_out_and_one_that_is_silent_is_there(
    plane: Plane, silent: Wanted
) -> None:
    """What it waited for is given up as well, so that its place is free."""
    timing = replace(REAL.gateway, keepalive_after=1, keepalive_every=1, keepalive_answer=2)
    model = await plane.serve(replace(silent, timing=timing))

    async with contextlib.AsyncExitStack() as stack:
        here = [await stack.enter_async_context(saying(model, words)) for words in (b"", REQUEST)]
        gone = [await stack.enter_async_context(saying(model, words)) for words in (b"", REQUEST)]
        await plane.until_in_flight(model, 2)
        for _, writer in gone:
            stack.enter_context(vanished(writer))

        async def are_found_out() -> bool:
            return await counted(plane, model) == (2, 1)

        await until(are_found_out, "the two that vanished are found out")
        assert [ended.done() for ended, _ in here] == [False, False]


def hello(name: str) -> bytes:
    """What a client of TLS says first (RFC 8446, section 4.1.2)."""
    context, said = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), ssl.MemoryBIO()
    with contextlib.suppress(ssl.SSLWantReadError):
        context.wrap_bio(ssl.MemoryBIO(), said, server_hostname=name).do_handshake()
    return said.read()


async def test_tls_that_is_not_agreed_on_ends(plane: Plane, folder: Path) -> None:
    authority, timing = trustme.CA(), replace(REAL.gateway, handshake_within=2.0)
    model = await plane.serve(
        Wanted(
            entrance=EntranceTls(certificates=("cert",)),
            pairs=(("cert", a_pair(authority, "chat.test")),),
            timing=timing,
        )
    )
    host, _, port = model.host.partition(":")
    context = Trust(authority, folder).context()
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname="chat.test")

    whole = hello("chat.test")
    async with (
        saying(model) as (nothing, _),
        saying(model, whole[:20]) as (a_part, _),
        saying(model, whole) as (all_but_the_end, _),
    ):
        for ended in (nothing, a_part, all_but_the_end):
            await in_time(ended, "the connection is closed")

    # It was there before all of them, and TLS is agreed on.
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
