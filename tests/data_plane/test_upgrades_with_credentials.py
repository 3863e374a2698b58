"""A WebSocket to a remote backend needs the credential like any other request."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.support.data_plane.backends import Backends
from tests.support.data_plane.product import PROMPT, Product
from tests.support.data_plane.protected import secret
from tests.support.timing import PATIENT
from tests.support.waiting import in_time

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMING = replace(PATIENT, folder=PROMPT)
KEY = "hush-of-the-api-key"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(backends: Backends, folder: Path) -> AsyncIterator[Product]:
    product = Product(backends, folder, timing=TIMING)
    try:
        await product.start()
        await product.join("envoy")
        yield product
    finally:
        await product.stop()


@pytest.mark.parametrize("away", [0, 100])
async def test_a_websocket_carries_the_key_to_the_remote_and_the_clients_own_to_a_replica(
    product: Product, away: int
) -> None:
    product.save("key", secret("key", {"apiKey": KEY}))
    remote = product.backends.remote
    auth = {"type": "apiKey", "apiKey": {"secretRef": {"name": "key"}}}
    product.offload_to({"host": f"{remote.host}:{remote.port}", "authConfig": auth}, away=away)
    await product.says(Programmed="Programmed")
    await product.all_go("remote" if away else "local")

    head, seen = await _upgraded(product, authorization="Bearer of-the-client")

    assert head.startswith(b"HTTP/1.1 101")
    assert [one["servedBy"] == "remote" for one in seen] == [away == 100]
    sent = [value for one in seen for name, value in one["headers"] if name == "authorization"]
    assert sent == [KEY if away else "Bearer of-the-client"]


async def _upgraded(product: Product, **headers: str) -> tuple[bytes, list[dict[str, Any]]]:
    """Open a WebSocket; return the head of the answer and what the backends saw of the request."""
    probe = uuid.uuid4().hex
    host, _, port = product.url.removeprefix("http://").partition("/")[0].partition(":")
    lines = {"host": "x", "connection": "upgrade", "upgrade": "websocket", "probe": probe, **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        writer.write(f"GET /ws HTTP/1.1\r\n{head}\r\n".encode())
        answered = await in_time(reader.readuntil(b"\r\n\r\n"), "an answer", within=60)
        writer.write(b"hello")
        assert await in_time(reader.readexactly(5), "an answer", within=60) == b"hello"
    finally:
        writer.close()
    return answered, product.backends.seen(probe)
