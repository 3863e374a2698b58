"""HTTP connections that leave nothing behind when they are over."""

from __future__ import annotations

import asyncio
from typing import Any
from weakref import WeakSet

import aiohttp


class Connections(aiohttp.TCPConnector):
    """Connections that all end with it, those too that were given up before.

    A TLS connection that is closed waits for the other side, half a minute if that is gone, and nothing waits for it.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._transports: WeakSet[asyncio.Transport] = WeakSet()

    async def connect(self, *request: Any, **options: Any) -> aiohttp.connector.Connection:
        """Give a connection for a request, and remember it."""
        connection = await super().connect(*request, **options)
        if connection.transport is not None:
            self._transports.add(connection.transport)
        return connection

    async def close(self, *, abort_ssl: bool = True) -> None:
        """End all at once."""
        for transport in self._transports:
            transport.abort()
        await super().close(abort_ssl=abort_ssl)
        await asyncio.sleep(0)  # Only now their sockets are closed.
