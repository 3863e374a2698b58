"""Which replicas of the xDS server there are, and following what each of them reports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import httpx
from tenacity import AsyncRetrying, retry_if_exception_type, wait_exponential_jitter

from controller.api.contract.reports import PATH, LoadReport, RouteReport, ServerReport
from controller.api.kubernetes.endpoints import replicas_of, staying
from controller.api.kubernetes.objects import EndpointSlice
from controller.api.registry import ENDPOINT_SLICE
from controller.api.schema.errors import InvalidObjectError
from controller.api.schema.values import parse
from controller.api.timing import REAL, ReportTiming
from controller.observe.proxies import Fleet
from controller.store.cache import Cache
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import ObjectStore

logger = logging.getLogger(__name__)

ADMIN_PORT = "admin"
REPORTS_PORT = "reports"
# Bytes that are read of why reports are not sent.
_LONGEST_REFUSAL = 300


Replicas = Mapping[str, bool]
"""The addresses (`host:port`) of all replicas, and whether new Envoys may come to each: to one that is ready."""


class ServerWatch:
    """Follows the EndpointSlices of one Service (namespace and name), and in them the port of this name.

    `always` are replicas that the Service need not name.
    """

    def __init__(
        self,
        store: ObjectStore,
        service: tuple[str, str],
        always: frozenset[str] = frozenset(),
        port: str = ADMIN_PORT,
    ) -> None:
        self._store = store
        self._service = service
        self._always = always
        self._port = port

    async def run(self, replicas: asyncio.Queue[Replicas]) -> None:
        """Put all replicas into the queue, again whenever they change."""
        cache, last = Cache(), None
        async for batch in self._store.watch([ENDPOINT_SLICE.kind]):
            cache.apply(batch)
            # Those that are always there may have new Envoys for all that is known.
            now = {**addresses_of(cache.slices_of(*self._service), self._port), **dict.fromkeys(self._always, True)}
            if now != last:
                last = now
                logger.info("replicas of the xDS server", extra={"count": len(now)})
                replicas.put_nowait(now)


def addresses_of(slices: tuple[StoredObject, ...], port: str = ADMIN_PORT) -> Replicas:
    """List where replicas that are there answer: ready or not, for one that is not still has its Envoys."""
    parsed = []
    for stored in slices:
        try:
            parsed.append(stored.parsed_as(EndpointSlice))
        except InvalidObjectError as error:
            logger.warning("endpoint slice not understood", extra={"object": str(stored.ref), "error": str(error)})
    found = staying(replicas_of(parsed, port))
    return {
        f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}": one.ready for one in found
    }


class ReportObserver(Protocol):
    """Who gets to know what the replicas report. It must not wait."""

    def look_again(self, models: frozenset[ObjectRef] | None) -> None:
        """Something changed for these objects; None: for all of them."""

    def look_at_loads(self) -> None:
        """Envoys reported load."""


# What ends a stream before its time: the connection, words that are no reports, or files that are no certificate.
_FAILURES = (httpx.HTTPError, InvalidObjectError, ValueError, OSError)


@dataclass(frozen=True, slots=True)
class ReportsTls:
    """How reports are read over TLS: `context` and `headers` read the files for one connection, and raise OSError.

    The certificate of each replica has `server_name`, whatever its address; empty: it has the address.
    """

    context: Callable[[], ssl.SSLContext]
    server_name: str = ""
    headers: Callable[[], Mapping[str, str]] = dict


class Feed:
    """Keeps a `Fleet` current.

    One that cannot be reached for a while does not count, but for what is in flight: its Envoys may be with it.
    `nowhere` says what is wrong when there is no replica to follow. Without `tls` it is plain HTTP. `replicas` is how
    many there are, whether they can be reached or not; None before anybody has said so.
    """

    def __init__(
        self,
        fleet: Fleet,
        observer: ReportObserver,
        timing: ReportTiming = REAL.reports,
        nowhere: str = "there is none",
        tls: ReportsTls | None = None,
    ) -> None:
        self.replicas: int | None = None
        self._tls = tls
        self._nowhere = nowhere
        self._fleet = fleet
        self._observer = observer
        self._timing = timing

    async def run(self, replicas: asyncio.Queue[Replicas]) -> None:
        """Follow the replicas that the queue named last, until cancelled."""
        async with asyncio.TaskGroup() as following:
            tasks: dict[str, asyncio.Task[None]] = {}
            while True:
                wanted, loads = await replicas.get(), self._fleet.loads
                self.replicas = len(wanted)
                self._note("", "" if wanted else self._nowhere)
                for replica in tasks.keys() - wanted.keys():
                    tasks.pop(replica).cancel()
                    self._fleet.drop(replica)
                    loads.drop(replica, datetime.now(UTC))
                    self._fleet.set_trouble(replica, "")
                    self._observer.look_again(None)
                for replica, is_open in wanted.items():
                    loads.expect(replica, datetime.now(UTC), is_open=is_open)
                for replica in wanted.keys() - tasks.keys():
                    self._fleet.expect(replica)
                    tasks[replica] = following.create_task(self._one(replica))

    async def _one(self, replica: str) -> None:
        """Follow one replica for ever; once it has been away for too long, it does not count."""
        first, longest = self._timing.first_retry, self._timing.longest_retry
        while True:
            away = asyncio.get_running_loop().call_later(self._timing.forget_after, self._forget, replica)
            try:
                # A fresh start after each stream that worked: the first attempt is at once.
                async for attempt in AsyncRetrying(
                    retry=retry_if_exception_type(_FAILURES),
                    wait=wait_exponential_jitter(multiplier=first, max=longest, jitter=first),
                ):
                    with attempt:
                        await self._heard(replica, away)
            finally:
                away.cancel()
            await asyncio.sleep(self._timing.pause)  # a stream that ends as soon as it begins is no reason to spin

    def _forget(self, replica: str) -> None:
        logger.warning("no reports of an xDS server", extra={"replica": replica})
        self._fleet.drop(replica)
        self._observer.look_again(None)

    def _note(self, replica: str, trouble: str) -> None:
        if self._fleet.set_trouble(replica, trouble):
            self._observer.look_again(None)

    def _client(self) -> httpx.AsyncClient:
        """Make the client of one stream, which is a connection of its own. Raises OSError."""
        timeout = httpx.Timeout(self._timing.connect, read=self._timing.alive_within)
        verify = self._tls.context() if self._tls else False
        headers = self._tls.headers() if self._tls else {}
        # Replicas are in the cluster: a proxy of the environment is not for them.
        return httpx.AsyncClient(timeout=timeout, trust_env=False, verify=verify, headers=headers)

    async def _heard(self, replica: str, away: asyncio.TimerHandle) -> None:
        """Read one stream to its end, and note why that could not be. Raises one of `_FAILURES`."""
        try:
            async with self._client() as client:
                await self._listen(replica, client, away)
        except _FAILURES as error:
            # TLS 1.3 connects before the server has looked at the certificate, and what it says then may be lost.
            refused = "; it may refuse the certificate of --xds-cert" if self._tls and _broke_off(error) else ""
            self._note(replica, f"the xDS server {replica} cannot be reached: {_why(error)}{refused}")
            raise

    async def _listen(self, replica: str, client: httpx.AsyncClient, away: asyncio.TimerHandle) -> None:
        """Read one stream to its end. Raises one of `_FAILURES` while nothing was heard yet."""
        first: list[RouteReport] = []
        synced = False
        with contextlib.ExitStack() as quiet:
            scheme = "https" if self._tls else "http"
            named = {"sni_hostname": self._tls.server_name} if self._tls and self._tls.server_name else {}
            async with client.stream("GET", f"{scheme}://{replica}{PATH}", extensions=named) as response:
                if response.is_error:
                    raise ValueError(await _refusal(response))
                async for line in response.aiter_lines():
                    report = _read(line)
                    if isinstance(report, ServerReport):
                        self._fleet.loads.set_silent(replica, report.silent, datetime.now(UTC))
                        news = self._fleet.add_replica_report(replica, report, asyncio.get_running_loop().time())
                        if news and synced:
                            self._observer.look_again(None)
                    elif isinstance(report, LoadReport):
                        self._fleet.loads.add_report(report, datetime.now(UTC), replica)
                        if report.counts:
                            self._observer.look_at_loads()
                        continue
                    elif synced:
                        self._observer.look_again(frozenset((self._fleet.add_report(replica, report),)))
                    else:
                        first.append(report)
                        continue
                    if not synced:
                        synced = True
                        away.cancel()
                        quiet.enter_context(contextlib.suppress(*_FAILURES))
                        self._fleet.set_trouble(replica, "")
                        self._fleet.complete(replica, frozenset(self._fleet.add_report(replica, one) for one in first))
                        self._observer.look_again(None)
                        logger.info("reports of an xDS server", extra={"replica": replica})
        if not synced:
            raise ValueError("ended before the whole list")


def _broke_off(error: BaseException) -> bool:
    return isinstance(error, httpx.ReadError | httpx.RemoteProtocolError)


def _why(error: BaseException) -> str:
    """Say why something could not be reached: in the words of TLS or of the operating system, if they are behind it."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, ssl.SSLCertVerificationError):
            return f"its certificate: {behind.verify_message}"
        if isinstance(behind, ssl.SSLError) and behind.reason:
            return f"TLS: {behind.reason.lower().replace('_', ' ')}"
        if isinstance(behind, OSError) and behind.errno and behind.errno > 0:
            return os.strerror(behind.errno)
        behind = behind.__cause__ or behind.__context__
    return str(error) or type(error).__name__


async def _refusal(response: httpx.Response) -> str:
    """Say what a server answers that does not send reports, with the beginning of its own words."""
    beginning = await anext(response.aiter_bytes(_LONGEST_REFUSAL), b"")
    words = "".join(one for one in beginning.decode(errors="replace") if one.isprintable())
    return f"{response.status_code} {response.reason_phrase}{f': {words}' if words else ''}"


def _read(line: str) -> RouteReport | LoadReport | ServerReport:
    """Read one line. Raises ValueError or InvalidObjectError for what is no report."""
    report = json.loads(line)
    if not isinstance(report, dict):
        raise ValueError("not a report")
    if "name" in report:
        return parse(RouteReport, report)
    return parse(LoadReport, report) if "node" in report else parse(ServerReport, report)
