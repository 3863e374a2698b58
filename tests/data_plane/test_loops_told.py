"""What the status says of a remote backend that is the gateway itself: known beforehand, or found out by a request."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from controller.api.timing import CheckTiming
from tests.support.connections import accepting
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.product import PROMPT, Product
from tests.support.http import plain_http
from tests.support.network import BACKEND_PORT, Network
from tests.support.timing import PATIENT
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

TIMING = replace(PATIENT, checks=CheckTiming(least_interval=0.5, in_doubt=0.1), folder=PROMPT)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def product(backends: Backends, folder: Path) -> AsyncIterator[Product]:
    product = Product(backends, folder, timing=TIMING)
    try:
        await product.start()
        await product.join("envoy")
        yield product
    finally:
        await product.stop()


@contextlib.asynccontextmanager
async def relay(host: str, port: int) -> AsyncIterator[None]:
    """Pass every connection on to a port of this host, as a load balancer of another name would."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", port)
        try:
            await asyncio.gather(copy(reader, forth), copy(back, writer))
        finally:
            forth.close()

    async with accepting(passed_on, host, BACKEND_PORT):
        yield


async def test_a_backend_that_is_known_to_be_the_gateway_is_not_used(product: Product) -> None:
    product.offload_to({"host": f"127.0.0.1:{product.front}"}, away=100)

    words = await product.says(ResolvedRefs="LoopDetected", RemoteHealthy="NoRemote", Ready="UnresolvedRefs")

    assert f"remoteBackend.host: 127.0.0.1, port {product.front}, is this gateway itself" in words
    await product.all_go("local")


async def test_one_that_turns_out_to_be_is_said_to_be_by_the_first_request(product: Product, network: Network) -> None:
    async with relay(network.host(20), product.front), plain_http() as client:
        product.offload_to({"host": f"{network.host(20)}:{BACKEND_PORT}"}, away=100)
        await product.says(ResolvedRefs="Resolved", RemoteHealthy="Answering", Programmed="Programmed")

        async def is_found_out() -> bool:
            # What a cluster that is new to Envoy does in its first second is not counted.
            answer = await client.get(product.url)
            assert (answer.status_code, answer.headers["x-beamlit-route"]) == (200, "local")
            conditions = (await product.model())["status"]["conditions"]
            return ("RemoteHealthy", "LoopDetected") in {(one["type"], one["reason"]) for one in conditions}

        await until(is_found_out, "RemoteHealthy says so", within=60)
        assert "it leads back to this gateway" in await product.says(RemoteHealthy="LoopDetected")
