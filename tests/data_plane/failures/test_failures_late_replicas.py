"""Replicas are slow or never answer: what is slow is not sent again, what is silent is avoided."""

from __future__ import annotations

import pytest

from tests.support.failures.cases import LATE_REPLICAS, Cell, cells
from tests.support.failures.plays import Plays

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("cell", cells(LATE_REPLICAS), ids=str)
async def test_what_is_promised_of_a_failure_holds(plays: Plays, cell: Cell) -> None:
    await plays.holds(cell)
