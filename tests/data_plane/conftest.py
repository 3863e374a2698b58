"""One Envoy per module, and a network of addresses that is its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from controller.api.timing import Timing
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.plane import AT_ONCE, Plane
from tests.support.data_plane.stage import Stage, stage_on
from tests.support.network import Network


@pytest.fixture(scope="module")
def network() -> Network:
    return Network.unused()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data_plane")


@pytest.fixture(scope="module")
def backends(network: Network, folder: Path) -> Iterator[Backends]:
    with Backends(network, folder).running() as backends:
        yield backends


@pytest.fixture(scope="module")
def timing() -> Timing:
    """What is withdrawn is gone at once, and no pause decides. A module on an order of events makes others of these."""
    return AT_ONCE


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(network: Network, backends: Backends, folder: Path, timing: Timing) -> AsyncIterator[Plane]:
    """An xDS server and one Envoy."""
    async with Plane(network, backends, folder, timing).running() as plane:
        await plane.join()
        yield plane


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(network: Network, folder: Path, timing: Timing) -> AsyncIterator[Stage]:
    """An xDS server, one Envoy, and servers of streams on both sides."""
    async with stage_on(network, folder, timing=timing) as stage:
        yield stage
