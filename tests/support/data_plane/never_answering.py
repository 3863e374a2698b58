"""A replica that takes requests and says nothing."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.settings import SettingCodes

from controller.api.kubernetes.endpoints import Replica
from tests.support.connections import accepting
from tests.support.network import BACKEND_PORT

MIB = 2**20


@contextlib.asynccontextmanager
async def never_answering(host: str, *, reads: bool) -> AsyncIterator[tuple[Replica, ...]]:
    """Serve a replica that takes HTTP/2 requests, with all of their bodies or with nothing, and says nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not reads:
            await asyncio.Event().wait()
        connection = H2Connection(H2Configuration(client_side=False))
        connection.local_settings[SettingCodes.INITIAL_WINDOW_SIZE] = 2**31 - 1
        connection.initiate_connection()
        connection.increment_flow_control_window(2**31 - 1 - 65535)
        writer.write(connection.data_to_send())
        with contextlib.suppress(ConnectionError):
            while await reader.read(MIB):
                pass

    async with accepting(serve, host, BACKEND_PORT):
        yield (Replica(host, BACKEND_PORT, ready=True),)
