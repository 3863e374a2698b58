"""Large bodies both ways: they arrive whole, however long a client takes to read them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener
from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (
    HttpConnectionManager,
)

from tests.support.data_plane.bodies import HELD_BY_ENVOY, LARGE, MIB, Sent, watched_memory
from tests.support.data_plane.model import Model
from tests.support.data_plane.mutation import limits, managers
from tests.support.data_plane.stage import SENT_ONCE, WAYS, Stage, address_of
from tests.support.data_plane.trap import Variants, serve_both
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")


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


def default_close(manager: HttpConnectionManager) -> None:
    manager.ClearField("delayed_close_timeout")


async def test_a_connection_that_is_to_be_closed_stays_until_its_answer_is_read(stage: Stage) -> None:
    """By `delayed_close_timeout`, on every way at the same time."""

    async def stays(way: str) -> Variants[bool]:
        wanted = replace(stage.http.wanted(way), change=limits(sixteen_mib))
        models = await serve_both(stage.plane, wanted, managers(default_close))
        async with _paused(stage, models.held) as rest_of_held, _paused(stage, models.removed) as rest_of_removed:
            await until(lambda: _is_cut_off(stage, models.removed), "one is closed before its answer is read")
            return Variants(await rest_of_held(), await rest_of_removed())

    stayed = await asyncio.gather(*map(stays, SENT_ONCE))

    assert dict(zip(SENT_ONCE, stayed, strict=True)) == dict.fromkeys(SENT_ONCE, Variants(held=True, removed=False))


def sixteen_mib(resource: Listener | Cluster) -> None:
    """Have Envoy hold as much of an answer as shows what becomes of it."""
    resource.per_connection_buffer_limit_bytes.value = 16 * MIB


@contextlib.asynccontextmanager
async def _paused(stage: Stage, model: Model) -> AsyncIterator[Callable[[], Awaitable[bool]]]:
    """Ask for an answer, and read of it until Envoy has all of the rest, and the system has not.

    What comes of this reads the rest and tells whether all of it came. Clients of HTTP/1.0 and many proxies have the
    connection closed as this one does.
    """
    # Envoy's own buffers take sixteen MiB, the system's four at the most (net.ipv4.tcp_wmem). By default the end comes
    # a second after Envoy has all.
    size, rest, probe = 16 * MIB, 12 * MIB, stage.probe()
    host, _, port = address_of(model).partition(":")
    loop, received = asyncio.get_running_loop(), 0

    with socket.socket() as client:

        async def read(most: float = math.inf) -> None:
            nonlocal received
            with contextlib.suppress(ConnectionResetError):
                while received < most and (data := await loop.sock_recv(client, 1 << 16)):
                    received += len(data)

        async def is_all_there() -> bool:
            return await stage.plane.envoy.stat(f"http.{model.key}.downstream_rq_active") == 0

        async def read_on() -> bool:
            await read()
            return received > size  # the body, and what frames it

        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
        client.setblocking(False)
        await loop.sock_connect(client, (host, int(port)))
        head = f"GET /v1/download?size={size} HTTP/1.1\r\nhost: x\r\nprobe: {probe}\r\nconnection: close\r\n\r\n"
        await loop.sock_sendall(client, head.encode())
        await read(size - rest)
        await until(is_all_there, "Envoy has all of the answer")
        yield read_on


async def _is_cut_off(stage: Stage, model: Model) -> bool:
    return await stage.plane.envoy.stat(f"http.{model.key}.downstream_cx_active") == 0
