"""A server of bare connections, for tests that say every byte of an answer themselves."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any
from weakref import WeakSet

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
"""What is done with a connection, until it returns or is cancelled; then the connection ends."""
_HANDED_OVER = 5
"""In fewer turns of the event loop than that a connection that is accepted is handed over."""


class Connections:
    """The connections that a server has accepted, each with a task of its own."""

    def __init__(self, serve: Serve) -> None:
        self._serve = serve
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers = WeakSet[asyncio.StreamWriter]()
        self._takes_more = True

    async def cut(self) -> None:
        """End them all."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def end(self) -> None:
        """End them all for good, those too that are accepted and not handed over yet, and wait until none is open.

        One that is left warns of itself when it is collected, in whatever test runs then.
        """
        self._takes_more = False
        await self.cut()
        for _ in range(_HANDED_OVER):
            await asyncio.sleep(0)
        left = tuple(self._writers)
        for writer in left:
            writer.transport.abort()
        await asyncio.gather(*(writer.wait_closed() for writer in left), return_exceptions=True)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take one, as `asyncio.start_server` hands it over."""
        self._writers.add(writer)
        if not self._takes_more:
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            # Also of a task that was cancelled before it began.
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
        # A server that is closed drops what it has accepted and not handed over yet (Python 3.11), and leaves it open.
        for listener in server.sockets:
            asyncio.get_running_loop().remove_reader(listener)
        await connections.end()
        server.close()
