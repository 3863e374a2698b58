"""Whatever fails, with each split: no request does for which there is a second try, and none is tried more than twice.

The same table, with more requests, is docs/failures.md (`make bench NAME=failures`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.data_plane.failures.cases import Cell, cells
from tests.data_plane.failures.cell import Size, come_of
from tests.data_plane.failures.promise import breaches
from tests.data_plane.failures.site import Site
from tests.data_plane.support.loopback import Network

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = Size(requests=1_500)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(network: Network, folder: Path) -> AsyncIterator[Site]:
    async with Site(network, folder).running() as site:
        yield site


@pytest.mark.parametrize("cell", list(cells()), ids=str)
async def test_what_is_promised_of_a_failure_holds(site: Site, cell: Cell) -> None:
    outcome = await come_of(site, cell, SIZE)

    assert list(breaches(outcome, cell.promise)) == [], outcome
