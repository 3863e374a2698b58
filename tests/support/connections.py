"""A server of bare connections, for tests that say every byte of an answer themselves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
"""What is done with a connection, until it returns or is cancelled."""


class Connections:
    """The connections that a server has accepted, each with a task of its own."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()

    async def cut(self) -> None:
        """End them all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one, as `asyncio.start_server` hands it over."""
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            # Also of a task that was cancelled before it began: a connection that nobody closes warns of itself, later,
            # in whatever test is running then.
            self._tasks.discard(task)
            writer.close()

        task.add_done_callback(ended)


@asynccontextmanager
async def accepting(
    serve: Serve, host: str = "127.0.0.1", port: int = 0, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, Connections]]:
    """Listen while the block runs; yields the port, and the connections that there are. They end with it."""
    connections = Connections(serve)
    server = await asyncio.start_server(connections.accept, host, port, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()
        await connections.cut()
