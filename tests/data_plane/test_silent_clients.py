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
from controller.api.timing import Timing
from tests.support.data_plane.model import SHARED_PORT, Model, Wanted
from tests.support.data_plane.mutation import managers
from tests.support.data_plane.never_answering import never_answering
from tests.support.data_plane.plane import AT_ONCE, Plane
from tests.support.data_plane.raw_clients import Http2Client, connected, vanished
from tests.support.entrance import Trust, a_pair
from tests.support.network import Network
from tests.support.timing import PATIENT
from tests.support.waiting import in_time, until

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def timing() -> Timing:
    return replace(AT_ONCE, gateway=replace(AT_ONCE.gateway, handshake_within=4.0))


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
    timing = replace(PATIENT.gateway, unused_by_clients=2.0)
    # How long Envoy goes on with a connection that has seen a request: without the five seconds an end is seen at once.
    soon = managers(lambda manager: manager.drain_timeout.FromMilliseconds(100))
    model = await plane.serve(replace(silent, timing=timing, change=soon))

    async with saying(model, REQUEST) as (answer, _), Http2Client.of(model) as client:
        await client.begin()
        await plane.until_in_flight(model, 2)
        async with saying(model) as (ended, _), Http2Client.of(model) as unused:
            assert await in_time(ended, "the connection is closed") == b""
            await until(lambda: unused.told_to_go and unused.ended, "the client of HTTP/2 is told to go, and let go")

        # They have been silent for longer than that.
        assert (answer.done(), client.told_to_go, client.resets, client.ended) == (False, False, 0, False)
        assert (await counted(plane, model))[1] == 2


async def test_a_client_that_vanished_is_found_out_and_one_that_is_silent_is_there(
    plane: Plane, silent: Wanted
) -> None:
    """What it waited for is given up as well, so that its place is free."""
    timing = replace(PATIENT.gateway, keepalive_after=1, keepalive_every=1, keepalive_answer=2)
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
    """At a model's own port and on the shared one, where who says nothing may still turn out to be in the clear."""
    authority = trustme.CA()
    pair = a_pair(authority, "quiet.a")
    tls = Wanted(hosts=("quiet.a",), entrance=EntranceTls(certificates=("cert",)), pairs=(("cert", pair),))
    model, plain = await plane.serve(tls), await plane.serve(Wanted(hosts=("plain.a",)))
    shared = replace(plain, url=f"http://{plane.network.host(1)}:{SHARED_PORT}/")
    context, whole = Trust(authority, folder).context(), hello("quiet.a")

    there = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()

    async def is_agreed_on() -> bool:
        with contextlib.suppress(OSError):  # On a busy machine that takes long as well.
            there.append(await asyncio.open_connection(*address, ssl=context, server_hostname="quiet.a"))
        return bool(there)

    address = (plane.network.host(1), model.port)
    await until(is_agreed_on, "TLS is agreed on")
    ((reader, writer),) = there
    ends = list[asyncio.Task[bytes]]()
    async with contextlib.AsyncExitStack() as stack:
        in_the_clear, still_silent = await stack.enter_async_context(saying(shared))
        for where, words in ((model, b""), (model, whole[:20]), (model, whole), (shared, whole[:20]), (shared, whole)):
            ends.append((await stack.enter_async_context(saying(where, words)))[0])
        for ended in ends:
            await in_time(ended, "the connection is closed")

        still_silent.write(b"GET / HTTP/1.1\r\nhost: plain.a\r\nconnection: close\r\n\r\n")
        assert (await in_the_clear).startswith(b"HTTP/1.1 200")

    # It was there before all of them, and TLS is agreed on.
    writer.write(b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()
