"""The Service of the xDS servers, as an Envoy sees one: an address that leads to one replica, then to another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from controller.gateway.bootstrap import HostPort
from tests.support.connections import Connections, accepting
from tests.support.network import unused_port


class Switchboard:
    """Passes TCP connections on to one replica. `received` counts the bytes that came back from it."""

    def __init__(self, replica: HostPort) -> None:
        self.address = HostPort("127.0.0.1", unused_port())
        self.received = 0
        self._replica = replica
        self._connections = Connections(self._pass_on)

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[Switchboard]:
        async with accepting(self._pass_on, self.address.host, self.address.port) as (_, self._connections):
            yield self

    async def lead_to(self, replica: HostPort) -> None:
        """Cut every connection; those that follow go to another replica. Counts anew."""
        self._replica, self.received = replica, 0
        await self._connections.cut()

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(self._replica.host, self._replica.port)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._copy(reader, back))
                    group.create_task(self._copy(there, writer, count=True))
            finally:
                back.close()
        except* OSError:
            pass  # One of the two is gone: so is the connection.

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, count: bool = False) -> None:
        while data := await reader.read(65536):
            self.received += len(data) if count else 0
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError
