"""Clients of several gateways, behind what a Service is to them: each new connection goes to one that is ready.

As with kube-proxy, a connection that is open stays where it is, and one that is refused is tried at the next gateway
(nothing was sent). Nothing else is ever tried again: any other trouble is a failed request.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field

from tests.support.data_plane.gateway import Gateway
from tests.support.load.answer import AnswerError
from tests.support.load.connection import Connection

_PROBED_EVERY_SECONDS = 0.3
NOTHING_CAME = frozenset({"closed", "ConnectionResetError", "BrokenPipeError"})
"""The errors of requests of which a gateway that ends may know nothing: it had no turn to accept their connection
before it stopped to listen, or closed one without a request as that was sent.
"""


@dataclass
class Outcome:
    """What became of the requests of many clients."""

    answered: Counter[str] = field(default_factory=Counter)
    """By the host that answered."""
    failed: list[str] = field(default_factory=list)
    unanswered: list[str] = field(default_factory=list)
    """Those of the failed for which nothing came."""


class ClientList:
    """The gateways by the addresses where they serve, and who of them is ready."""

    def __init__(self, gateways: Sequence[tuple[Gateway, str, int]]) -> None:
        self._gateways = gateways
        self._ready = [(host, port) for _, host, port in gateways]
        self._next = 0
        self.outcome = Outcome()

    @contextlib.asynccontextmanager
    async def probing(self) -> AsyncIterator[None]:
        """Look at the readiness of all, as the kubelet does."""
        task = asyncio.create_task(self._probe())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def client(self, target: str, stop: asyncio.Event, *, keepalive: bool = True) -> None:
        """Send one request after the other until `stop`."""
        connection, host = None, ""
        try:
            while not stop.is_set():
                try:
                    if connection is None or not connection.open:
                        connection, host = await self._connected()
                    more = "" if keepalive else "connection: close\r\n"
                    request = f"GET {target} HTTP/1.1\r\nhost: model\r\n{more}\r\n"
                    answer = await connection.exchange(request.encode())
                    if answer.status != 200:
                        raise AnswerError(f"status {answer.status}")
                except (AnswerError, OSError) as error:
                    words = f"{host} {target}: {error or type(error).__name__}"
                    self.outcome.failed.append(words)
                    if str(error) in NOTHING_CAME:
                        self.outcome.unanswered.append(words)
                    if connection is not None:
                        connection.close()
                    connection = None
                else:
                    self.outcome.answered[host] += 1
                    if not (keepalive and answer.reusable):
                        connection.close()
                        connection = None
        finally:
            if connection is not None:
                connection.close()

    async def _connected(self) -> tuple[Connection, str]:
        loop = asyncio.get_running_loop()
        self._next += 1
        first = self._next % len(self._ready)
        for host, port in (*self._ready[first:], *self._ready[:first]):
            try:
                _, connection = await loop.create_connection(Connection, host, port)
            except ConnectionRefusedError:
                continue
            return connection, host
        raise ConnectionRefusedError("by every gateway")

    async def _probe(self) -> None:
        while True:
            states = [(await gateway.readiness())[0] for gateway, _, _ in self._gateways]
            ready = [
                (host, port) for (_, host, port), state in zip(self._gateways, states, strict=True) if state == 200
            ]
            self._ready = ready or self._ready
            await asyncio.sleep(_PROBED_EVERY_SECONDS)
