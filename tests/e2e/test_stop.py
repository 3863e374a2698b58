"""`beamlit run --envoy` is stopped while requests are in flight, and what its Envoy wrote of them."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.support.beamlit import Product, Reply, Start, ask, eventually
from tests.support.data_plane.backends import Backends
from tests.support.e2e_manifests import endpoints, model, service, text_of
from tests.support.network import unused_port


# However long this machine takes until the requests are let go.
@pytest.mark.parametrize("seconds", [600, 0], ids=["drained", "at-once"])
async def test_a_stop_lets_requests_end(tmp_path: Path, backends: Backends, ends_soon: Start, seconds: int) -> None:
    product, port = Product(tmp_path, ends_soon), unused_port()
    documents = model("chat", backends.remote), service("chat", port), endpoints("chat", *backends.local)
    product.save("chat.yaml", text_of(*documents))
    async with product.running("--envoy", "--access-log", "all", "--drain-seconds", seconds):
        await product.programmed("chat")
        await eventually(lambda: ask(port), lambda reply: reply.side == "local")
        requests = await held(port, 8, backends)
        ending = asyncio.create_task(product.end(signal.SIGTERM))
        if seconds:
            # It takes no more connections, and waits.
            await eventually(lambda: ask(port), lambda reply: reply.error == "ConnectError")
            assert not ending.done()
            for one in backends.local:
                one.release("all")
        assert await ending == 0
        replies = await asyncio.gather(*requests)
        assert product.processes() == {}

    whole = [reply.side == "local" for reply in replies]
    assert whole == [seconds > 0] * 8, replies
    if seconds:
        assert [line["status"] for line in told(product)].count(200) >= 9
        assert {line["model"] for line in told(product)} == {"chat"}


async def held(port: int, count: int, backends: Backends) -> list[asyncio.Task[Reply]]:
    """Send so many requests, which the replicas have and do not answer before they are told to."""

    async def arrived() -> int:
        return sum(one.count() for one in backends.local)

    before = await arrived()
    requests = [asyncio.create_task(ask(port, **{"on-local": "held=all"})) for _ in range(count)]
    await eventually(arrived, lambda seen: seen == before + count)
    return requests


def told(product: Product) -> list[dict[str, Any]]:
    (log,) = product.state.glob("envoy/*/envoy.log")
    return [json.loads(line) for line in log.read_text().splitlines() if line.startswith("{")]


async def test_a_second_signal_does_not_wait_for_requests(tmp_path: Path, backends: Backends, ends_soon: Start) -> None:
    product, port = Product(tmp_path, ends_soon), unused_port()
    documents = model("chat", backends.remote), service("chat", port), endpoints("chat", *backends.local)
    product.save("chat.yaml", text_of(*documents))
    async with product.running("--envoy", "--drain-seconds", 600):
        await product.programmed("chat")
        await eventually(lambda: ask(port), lambda reply: reply.side == "local")
        (request,) = await held(port, 1, backends)
        ending = asyncio.create_task(product.end(signal.SIGTERM))
        await eventually(lambda: ask(port), lambda reply: reply.error == "ConnectError")
        assert not ending.done()
        assert await product.end(signal.SIGINT) == 0
        await ending
        assert (await request).error
