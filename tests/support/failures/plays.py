"""Each case played once, with all its splits and whatever lacks something beside them.

The same table, with more requests, is docs/failures.md (`make bench NAME=failures`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from tests.support.failures.cases import Case, Cell, cells
from tests.support.failures.clients import Size
from tests.support.failures.lacking import Lacking, lacking
from tests.support.failures.play import Part, come_of
from tests.support.failures.promise import Outcome, breaches
from tests.support.failures.site import Site

SIZE = Size(requests=450, clients=8, every=0.05)


class Plays:
    """What came of the cells of a module; the first that asks for one of a case has it played."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._played: dict[str, asyncio.Task[Mapping[str, Outcome]]] = {}

    async def holds(self, cell: Cell) -> None:
        """Assert that the promise of a cell is kept."""
        outcome = await self._outcome(cell, str(cell))
        broken = list(breaches(outcome, cell.promise))
        assert not broken, f"{cell}: {'; '.join(broken)}: {outcome}"

    async def misses(self, one: Lacking) -> None:
        """Assert that it is not without a setting, while it is with it."""
        await self.holds(one.cell)
        outcome = await self._outcome(one.cell, str(one))
        broken = "; ".join(breaches(outcome, one.cell.promise))
        assert one.breach in broken, f"{one}: not {one.breach!r} but {broken!r}: {outcome}"

    async def _outcome(self, cell: Cell, name: str) -> Outcome:
        case = cell.case
        if case.name not in self._played:
            self._played[case.name] = asyncio.create_task(self._play(case))
        return (await self._played[case.name])[name]

    async def _play(self, case: Case) -> Mapping[str, Outcome]:
        parts = {str(cell): Part(cell) for cell in cells([case])}
        parts |= {str(one): Part(one.cell, one.change) for one in lacking([case])}
        return dict(zip(parts, await come_of(self._site, tuple(parts.values()), SIZE), strict=True))
