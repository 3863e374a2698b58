"""Places that many wait for: few are taken at once, and namespaces take turns with them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from controller.signals.turns import Turns


class Places:
    """So many are taken at once, by one share (a namespace) half of them at most; see `Turns` for who is next."""

    def __init__(self, at_once: int) -> None:
        self._turns: Turns[asyncio.Future[None]] = Turns(at_once, max(at_once // 2, 1))

    @contextlib.asynccontextmanager
    async def taken(self, share: str) -> AsyncIterator[None]:
        """Wait for a place, and have it while the block runs."""
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._turns.add(mine, share)
        self._let_in()
        try:
            await mine
            yield
        finally:
            if not mine.cancelled():  # else it is passed over in its turn
                self._turns.end(mine)
                self._let_in()

    def _let_in(self) -> None:
        while (one := self._turns.take()) is not None:
            if one.cancelled():
                self._turns.end(one)
            else:
                one.set_result(None)
