"""Certificates, tokens and names fail: what cannot get to the remote backend is answered by a replica."""

from __future__ import annotations

import pytest

from tests.support.failures.cases import WAY_TO_REMOTE, Cell, cells
from tests.support.failures.plays import Plays

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("cell", cells(WAY_TO_REMOTE), ids=str)
async def test_what_is_promised_of_a_failure_holds(plays: Plays, cell: Cell) -> None:
    await plays.holds(cell)
