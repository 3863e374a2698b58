"""Large bodies both ways: they arrive whole, however long a client takes to read them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
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
        wanted = replace(stage.http.wanted(way), change=limits(four_mib))
        models = await serve_both(stage.plane, wanted, managers(default_close))
        return await models.at_once(lambda model: _read_with_pauses(stage, model))

    stayed = await asyncio.gather(*map(stays, SENT_ONCE))

    assert dict(zip(SENT_ONCE, stayed, strict=True)) == dict.fromkeys(SENT_ONCE, Variants(held=True, removed=False))


def four_mib(resource: Listener | Cluster) -> None:
    """Have Envoy hold as much of an answer as shows what becomes of it."""
    resource.per_connection_buffer_limit_bytes.value = 4 * MIB


async def _read_with_pauses(stage: Stage, model: Model) -> bool:
    """Tell whether the whole answer comes to a client that has the connection closed, and is in no hurry.

    Clients of HTTP/1.0 and many proxies have it closed. This one pauses, also when Envoy has all of the answer.
    """
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
    return received > size
