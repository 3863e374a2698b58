"""`behavior.maxRequestsPerReplica` counts an open stream of any kind as one request, for as long as it is open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.data_plane.open_streams import OpenStreams, opened
from tests.support.data_plane.stage import Stage, stage_on
from tests.support.network import Network
from tests.support.waiting import until

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT, REPLICAS = 2, 2
CAPACITY = LIMIT * REPLICAS


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(network: Network, folder: Path) -> AsyncIterator[Stage]:
    async with stage_on(network, folder) as stage:
        yield stage


@pytest.mark.parametrize("protocol", ["http", "rpc"])
async def test_a_stream_holds_its_place_until_it_ends(stage: Stage, protocol: str) -> None:
    """Events and WebSockets of HTTP, and calls of gRPC: who finds no place stays at the remote backend."""
    servers = {"http": stage.http, "rpc": stage.rpc}[protocol]
    model = await stage.plane.serve(servers.wanted("limited", limit=LIMIT))
    models = {protocol: model}

    async with opened(stage, models, CAPACITY) as first, opened(stage, models, 6) as then:
        assert (stayed(first) + stayed(then), len(first.streams) + len(then.streams)) == (CAPACITY, CAPACITY + 6)
        await first.go_on()
        await then.go_on()

    async def is_empty() -> bool:
        return await stage.plane.envoy.stat(f"cluster.{model.local_cluster}.upstream_rq_active") == 0

    await until(is_empty, "every place is free")
    async with opened(stage, models, CAPACITY) as again, opened(stage, models, 6) as too_many:
        assert stayed(again) + stayed(too_many) == CAPACITY


def stayed(streams: OpenStreams) -> int:
    """Count those that replicas have. One whose new connection took too long has left, and the next has its place."""
    return sum(one.side == "local" for one in streams.streams)
