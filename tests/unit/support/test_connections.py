"""A server of bare connections leaves none open: one that is left warns of itself in another test."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings

import pytest

from tests.support.connections import accepting


async def for_ever(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize("turns", range(6))
def test_none_is_open_afterwards_however_late_it_came(turns: int) -> None:
    """Each turn of the loop brings one that is accepted a step further on its way to who serves it."""

    async def one_comes() -> None:
        async with accepting(for_ever) as (port, _):
            with socket.create_connection(("127.0.0.1", port)):
                for _ in range(turns):
                    await asyncio.sleep(0)

    with warnings.catch_warnings(action="error"):
        asyncio.run(one_comes())
        gc.collect()
