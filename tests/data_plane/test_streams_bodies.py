"""Large bodies both ways: they arrive whole, and Envoy holds no more of them than its buffers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
from collections.abc import AsyncIterator

import grpc
import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from tests.support.data_plane.mutation import Change, limits, managers
from tests.support.data_plane.stage import SENT_ONCE, WAYS, Stage, address_of
from tests.support.data_plane.stream_http import CHUNK
from tests.support.data_plane.trap import with_and_without
from tests.support.waiting import at_rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

MIB = 1 << 20
LARGE = 64 * MIB
# What a request may hold in Envoy: 4 MiB of buffers for each connection, of which it has four through an internal
# listener, and for a retry.
HELD_BY_ENVOY = 32 * MIB


class Sent:
    """A body of `size` bytes, sent as fast as it is taken."""

    def __init__(self, size: int) -> None:
        self.size, self.sent = size, 0
        self._digest = hashlib.sha256()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while self.sent < self.size:
            data = CHUNK[: self.size - self.sent]
            yield data
            self._digest.update(data)
            self.sent += len(data)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()


@contextlib.asynccontextmanager
async def watched_memory(stage: Stage) -> AsyncIterator[list[int]]:
    """Collect how much more Envoy has allocated than before, every few milliseconds."""
    before, more = await stage.plane.envoy.memory(), [0]

    async def watch() -> None:
        while True:
            more.append(await stage.plane.envoy.memory() - before)
            await asyncio.sleep(0.02)

    watching = asyncio.create_task(watch())
    try:
        yield more
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.parametrize("framing", ["chunked", "content-length"])
@pytest.mark.parametrize("way", [*SENT_ONCE, "failover"])
async def test_a_large_upload_arrives_whole(stage: Stage, way: str, framing: str) -> None:
    model = await stage.plane.serve(stage.http.wanted(way))
    if way == "failover":
        # What is above the buffer is sent once only, so the dead replica must be known.
        await stage.plane.healthy(model, 0)
    body, headers = Sent(LARGE), {"probe": stage.probe()}
    if framing == "content-length":
        headers["content-length"] = str(LARGE)

    posting = stage.session.post(f"{model.url}v1/upload", headers=headers, data=body)
    async with watched_memory(stage) as more, posting as answer:
        received = json.loads(await answer.text())

    assert (answer.status, answer.headers["x-beamlit-route"]) == (200, WAYS[way])
    assert (received["length"], received["sha256"]) == (LARGE, body.sha256)
    sent_as = dict(stage.visits[headers["probe"]].headers)
    assert ("transfer-encoding" in sent_as, sent_as.get("content-length")) == (
        (True, None) if framing == "chunked" else (False, str(LARGE))
    )
    assert max(more) < HELD_BY_ENVOY


def unlimited(resource: Listener | Cluster) -> None:
    resource.per_connection_buffer_limit_bytes.value = 0


@pytest.mark.parametrize("way", SENT_ONCE)
@with_and_without(limits(unlimited), "a limit")
async def test_an_upload_waits_for_a_server_that_does_not_read(
    stage: Stage, way: str, change: Change, held: bool
) -> None:
    model = await stage.plane.serve(stage.http.wanted(way, change=change))
    body, probe = Sent(2 * LARGE), stage.probe()

    async with watched_memory(stage) as more:
        posting = asyncio.ensure_future(
            stage.session.post(f"{model.url}v1/upload?wait", headers={"probe": probe}, data=body)
        )
        under_way = await at_rest(lambda: body.sent)
        stage.visits[probe].go_on.set()
        async with await posting as answer:
            received = json.loads(await answer.text())

    assert received["sha256"] == body.sha256
    assert (under_way < 2 * LARGE, max(more) < HELD_BY_ENVOY) == (held, held)


@pytest.mark.parametrize("way", SENT_ONCE)
@with_and_without(limits(unlimited), "a limit")
async def test_a_download_waits_for_a_client_that_does_not_read(
    stage: Stage, way: str, change: Change, held: bool
) -> None:
    model = await stage.plane.serve(stage.http.wanted(way, change=change))
    probe = stage.probe()
    visit, digest = stage.visits[probe], hashlib.sha256()

    async with watched_memory(stage) as more:
        url = f"{model.url}v1/download?size={2 * LARGE}"
        async with stage.session.get(url, headers={"probe": probe}) as answer:
            under_way = await at_rest(lambda: visit.sent)
            async for data in answer.content.iter_any():
                digest.update(data)

    assert (digest.hexdigest(), visit.sent) == (visit.digest, 2 * LARGE)
    assert (under_way < 2 * LARGE, max(more) < HELD_BY_ENVOY) == (held, held)


@pytest.mark.parametrize("way", SENT_ONCE)
async def test_a_grpc_stream_waits_for_a_client_that_does_not_read(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.rpc.wanted(way))
    probe = stage.probe()
    visit = stage.visits[probe]

    async with watched_memory(stage) as more, stage.channel(model) as channel:
        call = channel.unary_stream("/any.Service/Flood")(b"%d" % (2 * LARGE), metadata=(("probe", probe),))
        first = await call.read()
        under_way = await at_rest(lambda: visit.sent)
        received = len(first)
        while (data := await call.read()) is not grpc.aio.EOF:
            received += len(data)

    assert received == 2 * LARGE
    assert under_way < 2 * LARGE
    assert max(more) < HELD_BY_ENVOY


@pytest.mark.parametrize("way", SENT_ONCE)
async def test_a_grpc_upload_waits_for_a_server_that_does_not_read(stage: Stage, way: str) -> None:
    model = await stage.plane.serve(stage.rpc.wanted(way))
    body, probe = Sent(2 * LARGE), stage.probe()

    async with watched_memory(stage) as more, stage.channel(model) as channel:
        metadata = (("probe", probe), ("wait", "1"))
        call = channel.stream_unary("/any.Service/Upload")(aiter(body), metadata=metadata)
        under_way = await at_rest(lambda: body.sent)
        stage.visits[probe].go_on.set()
        assert await call == f"{2 * LARGE} {body.sha256}".encode()

    assert under_way < 2 * LARGE
    assert max(more) < HELD_BY_ENVOY


def default_close(manager: HttpConnectionManager) -> None:
    manager.ClearField("delayed_close_timeout")


@pytest.mark.parametrize("way", SENT_ONCE)
@with_and_without(managers(default_close), "delayed_close_timeout")
async def test_a_connection_that_is_to_be_closed_stays_until_its_answer_is_read(
    stage: Stage, way: str, change: Change, held: bool
) -> None:
    """Clients of HTTP/1.0 and many proxies have it closed. This one pauses, also when Envoy has all of the answer."""
    model = await stage.plane.serve(stage.http.wanted(way, change=change))
    # At a pause with five or three MiB to go, Envoy has all of them and the system not: Envoy's own buffers take four,
    # the system's about one. By default the end comes a second after that.
    size, between_pauses, pause, probe = 9 * MIB, 2 * MIB, 2.0, stage.probe()
    host, _, port = address_of(model).partition(":")
    loop, received = asyncio.get_running_loop(), 0

    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        client.setblocking(False)
        await loop.sock_connect(client, (host, int(port)))
        head = f"GET /v1/download?size={size} HTTP/1.1\r\nhost: x\r\nprobe: {probe}\r\nconnection: close\r\n\r\n"
        await loop.sock_sendall(client, head.encode())
        with contextlib.suppress(ConnectionResetError):
            while data := await loop.sock_recv(client, 1 << 16):
                before, received = received, received + len(data)
                if before // between_pauses < received // between_pauses:
                    await asyncio.sleep(pause)

    # The body, and what frames it.
    assert (received > size) is held
