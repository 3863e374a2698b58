"""The admin interface of an Envoy that this program started: a socket in the folder of that Envoy."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx

SOCKET = Path("admin.sock")
"""Named from within the folder: the path of a socket may have some hundred bytes only (unix(7))."""

# The listeners of models are called `namespace/name`; internal ones have one more part.
_OF_CLIENTS = "downstream_(?:rq_active|rq_total|cx_tx_bytes_buffered)"
_STAT = re.compile(rf"^http\.[^/]+/[^/]+\.({_OF_CLIENTS}): (\d+)$", re.MULTILINE)
_TOLD = re.compile(r"^(?:cluster_manager\.cds|listener_manager\.lds)\.update_success: [1-9]", re.MULTILINE)


class EnvoyAdminError(Exception):
    """Envoy did not answer at its admin interface as it should."""


class Load(NamedTuple):
    """What clients have with an Envoy at one moment: requests in flight, bytes of answers not sent yet, all so far."""

    in_flight: int
    unsent: int
    requests: int

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if Envoy ended now."""
        return not (self.in_flight or self.unsent)


@dataclass(frozen=True, slots=True)
class EnvoyAdmin:
    """What is asked of an Envoy, and told to it. All of it raises EnvoyAdminError, and waits as long as Envoy takes."""

    client: httpx.AsyncClient

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, directory: Path) -> AsyncIterator[EnvoyAdmin]:
        """Open the admin interface of the Envoy in this folder."""
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            # Through the open folder, since its own path may be too long.
            transport = httpx.AsyncHTTPTransport(uds=f"/proc/self/fd/{folder}/{SOCKET}")
            async with httpx.AsyncClient(transport=transport, base_url="http://envoy", timeout=None) as client:
                yield cls(client)
        finally:
            os.close(folder)

    async def not_ready(self) -> str | None:
        """Say why it should get no requests: it has not started, has not been told anything yet, or drains."""
        state = (await self._asked("GET", "/ready")).strip()
        if state != "LIVE":
            return f"Envoy says {state}"
        told = _TOLD.findall(await self._asked("GET", "/stats", filter="update_success$"))
        return None if len(told) == 2 else "Envoy has not been told its clusters and listeners yet"

    async def fail_health_checks(self) -> None:
        """Let it say at `/ready` that it drains, and with every answer from now on that the connection ends."""
        await self._asked("POST", "/healthcheck/fail")

    async def stop_listening(self) -> None:
        """Let it accept no new connections; what is connected stays so, and internal listeners go on."""
        await self._asked("POST", "/drain_listeners")

    async def load(self) -> Load:
        """Count what clients have with it."""
        counted: dict[str, int] = {}
        for name, value in _STAT.findall(await self._asked("GET", "/stats", filter=f"{_OF_CLIENTS}$")):
            counted[name] = counted.get(name, 0) + int(value)
        return _load(counted)

    async def _asked(self, method: str, path: str, **query: str) -> str:
        try:
            answer = await self.client.request(method, path, params=query)
        except httpx.HTTPError as error:
            raise EnvoyAdminError(f"{path}: {error or type(error).__name__}") from error
        if path != "/ready" and answer.status_code != 200:
            raise EnvoyAdminError(f"{path}: status {answer.status_code}")
        return answer.text


def _load(counted: Mapping[str, int]) -> Load:
    return Load(
        in_flight=counted.get("downstream_rq_active", 0),
        unsent=counted.get("downstream_cx_tx_bytes_buffered", 0),
        requests=counted.get("downstream_rq_total", 0),
    )
