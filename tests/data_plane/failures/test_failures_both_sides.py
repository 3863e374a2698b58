"""Both sides fail: requests do so quickly, and are tried no more than twice."""

from __future__ import annotations

import pytest

from tests.support.failures.cases import BOTH_SIDES, Cell, cells
from tests.support.failures.lacking import Lacking, lacking
from tests.support.failures.plays import Plays

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.mark.parametrize("cell", cells(BOTH_SIDES), ids=str)
async def test_what_is_promised_of_a_failure_holds(plays: Plays, cell: Cell) -> None:
    await plays.holds(cell)


@pytest.mark.parametrize("lacking", lacking(BOTH_SIDES), ids=str)
async def test_the_matrix_sees_what_is_missing(plays: Plays, lacking: Lacking) -> None:
    await plays.misses(lacking)
