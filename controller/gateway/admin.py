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

logger = logging.getLogger(__name__)

SOCKET = Path("admin.sock")
"""Named from within the folder: the path of a socket may have some hundred bytes only (unix(7))."""

# Listeners for clients are called `KIND/NAMESPACE/NAME`, internal ones have one more part in front. An xDS server of an
# older version says `NAMESPACE/NAME`: a drain must not miss its requests either.
_OF_CLIENTS = "downstream_(?:rq_active|rq_total|cx_tx_bytes_buffered)"
_KINDS = "|".join(kind.word for kind in RouteKind)
_STAT = re.compile(rf"^http\.(?:(?:{_KINDS})/)?[^/\n]+/[^/\n]+\.({_OF_CLIENTS}): (\d+)$", re.MULTILINE)
_CODES = ("2xx", "4xx", "5xx")
_ANSWERED = re.compile(
    rf"^http\.(?:(?:{_KINDS})/(?P<namespace>[^/\n]+)/(?P<name>[^/\n]+)|gateway/hosts)\.downstream_rq_"
    rf"(?P<what>{'|'.join(_CODES)}|active|time): (?P<value>.+)$",
    re.MULTILINE,
)
_BUCKET = re.compile(r"B([\d.e+]+)\(\d+,(\d+)\)")
"""One bucket of a histogram: its bound in milliseconds, what came lately, and all that ever came."""
_BOUNDS = (0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
"""Of Envoy's own bounds, those that are told, in seconds."""
_CONFIGURED = re.compile(r"^(?:cluster_manager\.cds|listener_manager\.lds)\.update_success: [1-9]", re.MULTILINE)


class EnvoyAdminError(Exception):
    """Envoy did not answer at its admin interface as it should."""


class DownstreamLoad(NamedTuple):
    """What the clients of an Envoy wait for at one moment.

    `in_flight` are requests, `unsent` the bytes of answers that are not sent yet, `requests` all requests so far.
    """

    in_flight: int
    unsent: int
    requests: int

    @property
    def idle(self) -> bool:
        """Whether nothing would be lost if Envoy ended now."""
        return not (self.in_flight or self.unsent)


@dataclass(frozen=True, slots=True)
class ClientRequests:
    """What one Envoy has counted of the requests of clients of one model.

    `answered` is by the class of the status, such as `5xx`. `lasted` is how many took no longer than so many seconds,
    the last bound being infinite; empty while none was answered.
    """

    answered: Mapping[str, int]
    in_flight: int
    lasted: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class EnvoyAdmin:
    """The admin interface of one Envoy.

    Every call raises EnvoyAdminError when Envoy does not answer as it should, and waits for as long as Envoy takes.
    """

    client: httpx.AsyncClient

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, directory: Path) -> AsyncIterator[EnvoyAdmin]:
        """Use the admin interface of the Envoy whose socket is in this folder."""
        folder = os.open(directory, os.O_PATH | os.O_DIRECTORY)
        try:
            # Through the open folder, since its own path may be too long. To read authorities would take 20 ms.
            transport = httpx.AsyncHTTPTransport(uds=f"/proc/self/fd/{folder}/{SOCKET}", verify=False)
            async with httpx.AsyncClient(transport=transport, base_url="http://envoy", timeout=None) as client:
                yield cls(client)
        finally:
            os.close(folder)

    async def not_ready(self) -> str | None:
        """Say why it should get no requests: it starts, has no configuration yet, or drains. None if it should."""
        if reason := await self.not_live():
            return reason
        configured = _CONFIGURED.findall(await self._request("GET", "/stats", filter="update_success$"))
        return None if len(configured) == 2 else "Envoy has not been told its clusters and listeners yet"

    async def not_live(self) -> str | None:
        """Say why one that has its configuration should get no requests: it starts or drains. None if it should."""
        state = (await self._request("GET", "/ready")).strip()
        return None if state == "LIVE" else f"Envoy says {state}"

    async def fail_health_checks(self) -> None:
        """From now on `/ready` says that it drains, and every answer asks its client to connect anew."""
        await self._request("POST", "/healthcheck/fail")

    async def stop_listening(self) -> None:
        """Accept no new connections. Present ones stay open, and internal listeners go on."""
        await self._request("POST", "/drain_listeners")

    async def load(self) -> DownstreamLoad:
        """Count what its clients wait for, on all listeners of models."""
        counted: dict[str, int] = {}
        for name, value in _STAT.findall(await self._request("GET", "/stats", filter=f"{_OF_CLIENTS}$")):
            counted[name] = counted.get(name, 0) + int(value)
        return DownstreamLoad(
            in_flight=counted.get("downstream_rq_active", 0),
            unsent=counted.get("downstream_cx_tx_bytes_buffered", 0),
            requests=counted.get("downstream_rq_total", 0),
        )

    async def client_requests(self) -> Mapping[tuple[str, str], ClientRequests]:
        """Count the requests of clients, by namespace and name; both are empty for the port that all models share."""
        pattern = rf"^http\.([^/]+/[^/]+/[^/]+|gateway/hosts)\.downstream_rq_({'|'.join(_CODES)}|active|time)$"
        text = await self._request("GET", "/stats", filter=pattern, histogram_buckets="cumulative")
        return _client_requests(text)

    async def _request(self, method: str, path: str, **query: str) -> str:
        try:
            answer = await self.client.request(method, path, params=query)
        except httpx.HTTPError as error:
            raise EnvoyAdminError(f"{path}: {error or type(error).__name__}") from error
        if path != "/ready" and answer.status_code != 200:
            raise EnvoyAdminError(f"{path}: status {answer.status_code}")
        return answer.text


def _client_requests(stats: str) -> Mapping[tuple[str, str], ClientRequests]:
    """Read what Envoy shows, with its histograms as cumulative buckets."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for one in _ANSWERED.finditer(stats):
        found.setdefault((one["namespace"] or "", one["name"] or ""), {})[one["what"]] = one["value"]
    return {
        model: ClientRequests(
            answered={code: int(values.get(code, 0)) for code in _CODES},
            in_flight=int(values.get("active", 0)),
            lasted=_durations(values.get("time", "")),
        )
        for model, values in found.items()
    }


def _durations(shown: str) -> tuple[tuple[str, int], ...]:
    buckets = {float(bound) / 1000: int(count) for bound, count in _BUCKET.findall(shown)}
    if not buckets:
        return ()
    # Envoy has no bucket without a bound; its last one is an hour.
    return (*((str(bound), buckets[bound]) for bound in _BOUNDS if bound in buckets), ("+Inf", max(buckets.values())))


@dataclass(frozen=True, slots=True)
class DrainOptions:
    """How an Envoy is drained.

    New connections are served for `delay` seconds more, until whoever sends them has noticed. The drain takes `seconds`
    in all, however much is in flight then; setting `at_once` ends it before.
    """

    delay: float
    seconds: float
    at_once: asyncio.Event


async def drain(admin: EnvoyAdmin, options: DrainOptions, timing: EnvoyTiming) -> None:
    """Take an Envoy out of service; whatever is in flight when this returns, it may be ended. Raises nothing."""
    draining = asyncio.create_task(_drain(admin, options, timing))
    at_once = asyncio.create_task(options.at_once.wait())
    try:
        await asyncio.wait((draining, at_once), return_when=asyncio.FIRST_COMPLETED)
        if not draining.done():
            logger.warning("a second signal ends the drain")
        elif error := draining.exception():
            logger.warning("envoy cannot be drained", extra={"error": error})
    finally:
        for task in (draining, at_once):
            task.cancel()
        await asyncio.gather(draining, at_once, return_exceptions=True)


async def _drain(admin: EnvoyAdmin, options: DrainOptions, timing: EnvoyTiming) -> None:
    """Raises EnvoyAdminError."""
    progress = _DrainProgress(options.seconds, timing.drain_logged_every)
    try:
        async with asyncio.timeout(options.seconds):
            await admin.fail_health_checks()
            await _serve_new_connections(admin, options.delay, progress)
            await admin.stop_listening()
            await _wait_until_idle(admin, progress, timing.drain_looks_every)
    except TimeoutError:
        in_flight = progress.last.in_flight if progress.last else "unknown"
        logger.warning("envoy ends with requests in flight: the time is up", extra={"in_flight": in_flight})
    else:
        logger.info("drained envoy")


async def _serve_new_connections(admin: EnvoyAdmin, seconds: float, progress: _DrainProgress) -> None:
    until = progress.now() + seconds
    while (left := until - progress.now()) > 0:
        progress.record(await admin.load())
        await asyncio.sleep(min(left, progress.logged_every))


_IDLE_LOOKS = 3
"""So many looks in a row must find nothing in flight and no new request: who just connected may be about to ask."""


async def _wait_until_idle(admin: EnvoyAdmin, progress: _DrainProgress, looks_every: float) -> None:
    idle_looks = 0
    while idle_looks < _IDLE_LOOKS:
        before, now = progress.last, await admin.load()
        progress.record(now)
        idle_looks = idle_looks + 1 if now.idle and before and now.requests == before.requests else 0
        await asyncio.sleep(looks_every)


class _DrainProgress:
    """The load of a draining Envoy as it was last measured; logged every few seconds."""

    def __init__(self, seconds: float, logged_every: float) -> None:
        self.logged_every = logged_every
        self.now = asyncio.get_running_loop().time
        self.last: DownstreamLoad | None = None
        self._end = self.now() + seconds
        self._next_log = 0.0

    def record(self, load: DownstreamLoad) -> None:
        self.last = load
        if self.now() < self._next_log:
            return
        self._next_log = self.now() + self.logged_every
        left = round(max(0.0, self._end - self.now()), 1)
        logger.info("draining envoy", extra={"in_flight": load.in_flight, "seconds_left": left})
