"""Envoy's admin interface, and how an Envoy is drained by it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import re
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import httpx

from controller.api.contract.route import RouteKind
from controller.api.timing import EnvoyTiming

SOCKET = Path("admin.sock")
"""Named from within the folder: the path of a socket may have some hundred bytes only (unix(7))."""

# The listeners for clients are called `kind/namespace/name`; internal ones have one more part, in front.
_OF_CLIENTS = "downstream_(?:rq_active|rq_total|cx_tx_bytes_buffered)"
_KINDS = "|".join(kind.word for kind in RouteKind)
_STAT = re.compile(rf"^http\.(?:{_KINDS})/[^/]+/[^/]+\.({_OF_CLIENTS}): (\d+)$", re.MULTILINE)
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


logger = logging.getLogger(__name__)

_QUIET_AFTER_LOOKS = 3


@dataclass(frozen=True, slots=True)
class Drain:
    """How long it may take: `delay` seconds during which new connections are served, `seconds` in all."""

    delay: float
    seconds: float


async def drain(admin: EnvoyAdmin, wanted: Drain, at_once: asyncio.Event, timing: EnvoyTiming) -> None:
    """Take an Envoy out of service; it may be ended when this returns. `at_once` makes it return, whatever is left."""
    draining = asyncio.create_task(_drain(admin, wanted, timing))
    impatient = asyncio.create_task(at_once.wait())
    try:
        await asyncio.wait((draining, impatient), return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            logger.warning("a second signal ends the drain")
        elif error := draining.exception():
            logger.warning("envoy cannot be drained", extra={"error": error})
    finally:
        for task in (draining, impatient):
            task.cancel()
        await asyncio.gather(draining, impatient, return_exceptions=True)


async def _drain(admin: EnvoyAdmin, wanted: Drain, timing: EnvoyTiming) -> None:
    """Raises EnvoyAdminError."""
    seen = _Seen(wanted.seconds, timing.drain_told_every)
    try:
        async with asyncio.timeout(wanted.seconds):
            await admin.fail_health_checks()
            await _serve_new_connections(admin, wanted.delay, seen)
            await admin.stop_listening()
            await _wait_until_quiet(admin, seen, timing.drain_looks_every)
    except TimeoutError:
        in_flight = seen.last.in_flight if seen.last else "unknown"
        logger.warning("envoy ends with requests in flight: the time is up", extra={"in_flight": in_flight})
    else:
        logger.info("drained envoy")


async def _serve_new_connections(admin: EnvoyAdmin, seconds: float, seen: _Seen) -> None:
    over = seen.now() + seconds
    while (left := over - seen.now()) > 0:
        seen.load(await admin.load())
        await asyncio.sleep(min(left, seen.tells_every))


async def _wait_until_quiet(admin: EnvoyAdmin, seen: _Seen, looks_every: float) -> None:
    """Wait until nothing is in flight and nothing comes: a client that has just connected may be about to ask."""
    quiet = 0
    while quiet < _QUIET_AFTER_LOOKS:
        before, now = seen.last, await admin.load()
        seen.load(now)
        quiet = quiet + 1 if now.idle and before and now.requests == before.requests else 0
        await asyncio.sleep(looks_every)


class _Seen:
    """What was seen of a drain so far; it tells of it every few seconds."""

    def __init__(self, seconds: float, tells_every: float) -> None:
        self.tells_every = tells_every
        self.now = asyncio.get_running_loop().time
        self.last: Load | None = None
        self._end = self.now() + seconds
        self._tells_next = 0.0

    def load(self, load: Load) -> None:
        self.last = load
        if self.now() < self._tells_next:
            return
        self._tells_next = self.now() + self.tells_every
        left = round(max(0.0, self._end - self.now()), 1)
        logger.info("draining envoy", extra={"in_flight": load.in_flight, "seconds_left": left})
