"""What the stream servers of a test saw of each request, and what they are to send: one visit for each `probe`."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field


@dataclass
class Visit:
    """One request at a server. What is put into `script` is sent at once; None ends the answer."""

    served_by: str = ""
    headers: list[tuple[str, str]] = field(default_factory=list)
    script: asyncio.Queue[str | None] = field(default_factory=asyncio.Queue)
    received: int = 0
    """Bytes of the body, or messages."""
    sent: int = 0
    """Bytes of the answer that the server's own operating system took."""
    ended: str = ""
    """How it ended for the server: "finished" or "aborted", empty while it lasts."""
    closed_with: int | None = None
    """The code of a WebSocket's closing frame."""
    digest: str = ""
    """The SHA-256 of what it sent."""
    over: asyncio.Event = field(default_factory=asyncio.Event)
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the test lets a server that was asked to wait go on."""

    async def lines(self) -> AsyncIterator[str]:
        while (line := await self.script.get()) is not None:
            yield line

    def take(self, body: hashlib._Hash, data: bytes) -> None:
        body.update(data)
        self.received += len(data)


class Visits:
    """All visits, by their probe. A server begins one, a test may ask for it earlier."""

    def __init__(self) -> None:
        self._visits: defaultdict[str, Visit] = defaultdict(Visit)
        self.attempts: dict[str, int] = defaultdict(int)

    def __getitem__(self, probe: str) -> Visit:
        return self._visits[probe]

    @contextlib.contextmanager
    def visit(self, probe: str, served_by: str, headers: list[tuple[str, str]]) -> Iterator[Visit]:
        """Note who serves it, and how it ends: what is thrown at a server is a client that went away."""
        visit = self._visits[probe]
        visit.served_by, visit.headers = served_by, headers
        self.attempts[probe] += 1
        visit.begun.set()
        try:
            yield visit
            visit.ended = "finished"
        except (asyncio.CancelledError, GeneratorExit, ConnectionError):
            visit.ended = "aborted"
            raise
        except Exception as error:
            visit.ended = repr(error)
            raise
        finally:
            visit.over.set()
