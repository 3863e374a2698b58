"""One site per module, and each case played on it once."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.support.failures.plays import Plays
from tests.support.failures.site import Site
from tests.support.network import Network


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plays(network: Network, folder: Path) -> AsyncIterator[Plays]:
    async with Site(network, folder, delay=0.02).running() as site:
        yield Plays(site)
