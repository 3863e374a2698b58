"""What clients may take of an Envoy: a client that tries to take more, and another one that is served all the while."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
import yaml
from h2.settings import SettingCodes

from controller.api.timing import Timing
from controller.gateway.bootstrap import HostPort, Provision, bootstrap_for
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.never_answering import never_answering
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.raw_clients import (
    CONTINUATION,
    HEADERS,
    OPENING,
    RST_STREAM,
    Http2Client,
    connected,
    frame,
    in_frames,
    said,
)
from tests.support.envoy import Bootstrap
from tests.support.network import Network
from tests.support.timing import PATIENT
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 2**20
CONNECTIONS = 40
MEMORY = 240 * MIB
LOCAL = Wanted(away=0)


@pytest.fixture(scope="module")
def timing() -> Timing:
    return replace(PATIENT, gateway=replace(PATIENT.gateway, headers_within=1.0))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def bounded(backends: Backends, folder: Path) -> AsyncIterator[Plane]:
    """An Envoy that may have few connections and little memory, as `beamlit envoy` starts it."""

    def provided(bootstrap: Bootstrap) -> None:
        provision = Provision(memory=MEMORY, connections=CONNECTIONS)
        printed = yaml.safe_load(bootstrap_for("", "", HostPort("h", 1), None, provision))
        bootstrap["overload_manager"] = printed["overload_manager"]

    (folder / "bounded").mkdir()
    async with Plane(Network.unused(), backends, folder / "bounded").running() as plane:
        await plane.join("bounded", change=provided)
        yield plane


async def test_headers_that_come_slowly_end(plane: Plane) -> None:
    model = await plane.serve(LOCAL)

    answer = await said(model, b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: ")

    assert answer.startswith(b"HTTP/1.1 408")
    assert (await plane.ask(model)).status == 200


# A POST of "/", which is not whole without END_HEADERS.
HEAD = frame(HEADERS, b"\x83\x86\x84")
ONE_MORE = frame(CONTINUATION, b"\x40\x01x\x01y")


async def test_headers_that_never_end_over_http2_end(plane: Plane) -> None:
    """Whether a head goes on, a frame does, or what is more of it drips."""
    model = await plane.serve(LOCAL)

    async def answer(first: bytes, then: bytes = b"") -> bytes:
        """What is in the HEADERS that end the stream."""
        reader, writer = await connected(model)
        dripping = asyncio.create_task(drip(writer, then))
        try:
            writer.write(OPENING + first)
            heard = dict[int, bytes]()
            async for kind, payload in in_frames(reader):
                heard[kind] = payload
                if kind == RST_STREAM:
                    break
            return heard.get(HEADERS, b"")
        finally:
            dripping.cancel()
            writer.transport.abort()

    answers = await asyncio.gather(answer(HEAD), answer(HEAD[:9]), answer(HEAD, ONE_MORE))

    assert [b"408" in one for one in answers] == [True] * 3
    assert (await plane.ask(model)).status == 200


async def drip(writer: asyncio.StreamWriter, drop: bytes) -> None:
    while drop:
        await asyncio.sleep(0.05)
        writer.write(drop)


async def test_a_body_may_come_as_slowly_as_it_likes(plane: Plane) -> None:
    """Longer than headers may."""
    model = await plane.serve(LOCAL)
    reader, writer = await connected(model)
    writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\nconnection: close\r\n\r\n")
    for byte in (b"s", b"l", b"o", b"w"):
        await asyncio.sleep(0.4)
        writer.write(byte)

    assert (await reader.read()).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_a_header_whose_name_has_an_underscore_is_dropped(plane: Plane) -> None:
    """It would pass by what is taken off by its name with a dash."""
    model = await plane.serve(Wanted(away=100))

    reply = await plane.ask(model, headers=[("x_forwarded_for", "1.1.1.1"), ("x-kept", "1")])

    (seen,) = plane.backends.seen(reply.probe)
    names = {name for name, _ in seen["headers"]}
    assert (reply.status, "x_forwarded_for" in names, "x-kept" in names) == (200, False, True)


@pytest.mark.parametrize(
    ("flood", "passes"),
    [
        ("".join(f"x-{number}: 1\r\n" for number in range(90)), True),
        ("".join(f"x-{number}: 1\r\n" for number in range(101)), False),
        (f"x-large: {'a' * 50_000}\r\n", True),
        (f"x-large: {'a' * 70_000}\r\n", False),
    ],
    ids=["90", "101", "50 KB", "70 KB"],
)
async def test_a_flood_of_headers_is_refused(bounded: Plane, flood: str, passes: bool) -> None:
    # Where headers have ten seconds: so much of them takes its time.
    model = await bounded.serve(LOCAL)

    answer = await said(model, f"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n{flood}\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 200" if passes else b"HTTP/1.1 431")


async def test_a_connection_has_a_hundred_streams_and_one_more_is_refused(plane: Plane) -> None:
    model = await plane.serve(LOCAL)
    async with Http2Client.of(model) as client:
        for _ in range(100):
            await client.begin()
        assert (client.streams_allowed, client.resets) == (100, 0)
        client.http.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1000
        client.http.remote_settings.acknowledge()
        await client.begin()
        # It has acknowledged that there are no more: Envoy ends what speaks like this.
        await until(lambda: client.resets or client.ended, "the stream above is refused")
        assert (await plane.ask(model)).status == 200


async def test_connections_are_bounded_and_those_that_are_there_are_served(bounded: Plane) -> None:
    model = await bounded.serve(LOCAL)
    await one_more_is_closed(bounded, model, CONNECTIONS)


async def test_clients_of_one_model_leave_connections_for_those_of_others(bounded: Plane) -> None:
    calm, model = await bounded.serve(LOCAL), await bounded.serve(replace(LOCAL, connections=10))
    await one_more_is_closed(bounded, model, 10, calm)
    assert await bounded.envoy.stat(f"connection_limit.{model.key}.limited_connections") > 0


async def one_more_is_closed(plane: Plane, model: Model, limit: int, calm: Model | None = None) -> None:
    """Take all the connections there are, while clients of a calm model are served; then let go of them."""
    kept = list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]()

    async def answered(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        with contextlib.suppress(ConnectionError):
            writer.write(b"HEAD / HTTP/1.1\r\nhost: a\r\n\r\n")
            return (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        return False

    async def is_closed() -> bool:
        kept.append(await connected(model))
        with contextlib.suppress(asyncio.IncompleteReadError):
            return not await answered(*kept[-1])
        return True

    try:
        await until(is_closed, "one more is closed")
        assert (len(kept), await answered(*kept[0])) == (limit + 1, True)
        if calm:
            assert await is_answered(plane, calm)
    finally:
        for _, writer in kept:
            writer.close()

    async def is_served_again() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await plane.ask(model)).status == 200
        return False

    await until(is_served_again, "there is room again")


@pytest.mark.parametrize("away", [0, 100])
async def test_a_client_that_does_not_read_holds_less_than_a_request_may(plane: Plane, away: int) -> None:
    """What can be sent again, up to 4 MiB, has a bound of its own: an answer that nobody reads needs no such buffer."""
    model, count = await plane.serve(Wanted(away=away)), 30
    before, seen, writers = await plane.envoy.memory(), list[int](), []

    async def is_at_rest() -> bool:
        seen.append(await plane.envoy.memory())
        buffered = await plane.envoy.stat(f"http.{model.key}.downstream_cx_tx_bytes_buffered")
        return buffered > count * MIB / 10 and max(seen[-10:]) - min(seen[-10:]) < MIB / 4

    try:
        for _ in range(count):
            _, writer = await connected(model)
            writers.append(writer)
            writer.transport.pause_reading()
            writer.write(b"GET / HTTP/1.1\r\nhost: a\r\non-local: size=30000000\r\non-remote: size=30000000\r\n\r\n")
        await until(is_at_rest, "no more of the answers is taken")
    finally:
        for writer in writers:
            writer.transport.abort()
    assert (seen[-1] - before) / count < MIB


async def attacked(plane: Plane, model: Model, bodies: int = 30, size: int = 4 * MIB) -> tuple[int, set[int], int]:
    """Send so many bodies on each of two connections and no end of any, while another client asks another model.

    Return what the Envoy had allocated at most, what the other client was answered, and how many streams were reset or
    connections ended.
    """
    calm, most, statuses = await plane.serve(LOCAL), 0, set[int]()
    async with Http2Client.of(model) as one, Http2Client.of(model) as other:
        clients = (one, other)
        begun = [(each, await each.begin(("content-length", str(size)))) for each in clients for _ in range(bodies)]
        uploads = asyncio.gather(*(client.upload(stream, size - 1) for client, stream in begun))
        while not uploads.done():
            statuses.add((await plane.ask(calm)).status)
            most = max(most, await plane.envoy.memory())
        await uploads
        await until(lambda: any(each.resets or each.ended for each in clients), "some are let go")
        resets = sum(each.resets + each.ended for each in clients)
    await until(lambda: is_answered(plane, calm), "the other client is served")
    return most, statuses, resets


async def is_answered(plane: Plane, model: Model) -> bool:
    return (await plane.ask(model)).status == 200


@pytest.mark.parametrize("reads", [False, True], ids=["that does not read", "that reads"])
async def test_uploads_to_a_replica_end_before_the_memory_does(bounded: Plane, network: Network, reads: bool) -> None:
    """Sixty of 4 MiB take 500 MB without a bound. Those that hold most are let go, or what is new is refused a while;
    every request of another client is answered.
    """
    async with never_answering(network.host(60 + reads), reads=reads) as replicas:
        model = await bounded.serve(replace(LOCAL, replicas=replicas), ready=False)
        await bounded.acknowledged(model)

        most, statuses, resets = await attacked(bounded, model)

    assert (most < MEMORY, statuses <= {200, 503}, resets > 0) == (True, True, True)


async def test_many_small_uploads_end_before_the_memory_does(bounded: Plane, network: Network) -> None:
    """Each of two hundred holds less than 1 MiB, with what is kept of it to send it again."""
    async with never_answering(network.host(62), reads=False) as replicas:
        model = await bounded.serve(replace(LOCAL, replicas=replicas), ready=False)
        await bounded.acknowledged(model)

        most, statuses, resets = await attacked(bounded, model, bodies=100, size=320 * 1024)

    assert (most < MEMORY, statuses <= {200, 503}, resets > 0) == (True, True, True)
