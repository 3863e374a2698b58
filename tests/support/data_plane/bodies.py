"""Large bodies, and what Envoy holds of them."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.config.listener.v3.listener_pb2 import Listener

from tests.support.data_plane.stage import SENT_ONCE, Stage
from tests.support.data_plane.stream_http import CHUNK

MIB = 1 << 20
LARGE = 64 * MIB
LARGER = 96 * MIB
"""More than what Envoy and the system may hold of one on its way over HTTP/1.1."""
# What a request may hold in Envoy: 4 MiB of the window of each connection of HTTP/2, of which it has four through an
# internal listener, and for a retry. Over HTTP/1.1 it is 256 KiB for each.
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
    """Collect how much more Envoy has allocated than before, some times a second."""
    before, more = await stage.plane.envoy.memory(), [0]

    async def watch() -> None:
        while True:
            more.append(await stage.plane.envoy.memory() - before)
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    try:
        yield more
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)


def unlimited(resource: Listener | Cluster) -> None:
    """Let Envoy hold as much as comes."""
    resource.per_connection_buffer_limit_bytes.value = 0


def limited_or_not(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    """Play it on every way, with the limit and without: twice, as what Envoy has allocated is one number for all."""
    variants = pytest.mark.parametrize("held", [True, False], ids=["with a limit", "without a limit"])
    return pytest.mark.parametrize("way", SENT_ONCE)(variants(test))
