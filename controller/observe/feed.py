"""Which replicas of the xDS server there are, and following what each of them reports."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
from collections.abc import Callable
from datetime import UTC, datetime

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


class ServerWatch:
    """Follows the EndpointSlices of one Service (namespace and name). `always` are replicas that it need not name."""

    def __init__(self, store: ObjectStore, service: tuple[str, str], always: frozenset[str] = frozenset()) -> None:
        self._store = store
        self._service = service
        self._always = always

    async def run(self, replicas: asyncio.Queue[frozenset[str]]) -> None:
        """Put the addresses (`host:port`) of all replicas into the queue, again whenever they change."""
        cache, last = Cache(), None
        async for batch in self._store.watch([ENDPOINT_SLICE.kind]):
            cache.apply(batch)
            now = self._always | addresses_of(cache.slices_of(*self._service))
            if now != last:
                last = now
                logger.info("replicas of the xDS server", extra={"count": len(now)})
                replicas.put_nowait(now)


def addresses_of(slices: tuple[StoredObject, ...]) -> frozenset[str]:
    """List where replicas that are there answer: ready or not, for one that is not still has its Envoys."""
    parsed = []
    for stored in slices:
        try:
            parsed.append(stored.parsed_as(EndpointSlice))
        except InvalidObjectError as error:
            logger.warning("endpoint slice not understood", extra={"object": str(stored.ref), "error": str(error)})
    found = staying(replicas_of(parsed, ADMIN_PORT))
    return frozenset(
        f"[{one.address}]:{one.port}" if ":" in one.address else f"{one.address}:{one.port}" for one in found
    )


OnReports = Callable[[frozenset[ObjectRef] | None], None]

# What ends a stream before its time: the connection, or words that are no reports.
_FAILURES = (httpx.HTTPError, InvalidObjectError, ValueError)


class Feed:
    """Keeps a `Fleet` current.

    `observer` is told which models something changed for, None for all of them; it must not wait. `nowhere` says what
    is wrong when there is no replica to follow.
    """

    def __init__(
        self, fleet: Fleet, observer: OnReports, timing: ReportTiming = REAL.reports, nowhere: str = "there is none"
    ) -> None:
        self._nowhere = nowhere
        self._fleet = fleet
        self._observer = observer
        self._timing = timing

    async def run(self, replicas: asyncio.Queue[frozenset[str]]) -> None:
        """Follow the replicas that the queue named last (`host:port` each), until cancelled."""
        timeout = httpx.Timeout(self._timing.connect, read=self._timing.alive_within)
        # Replicas are in the cluster: a proxy of the environment is not for them.
        async with httpx.AsyncClient(timeout=timeout, trust_env=False) as client, asyncio.TaskGroup() as following:
            tasks: dict[str, asyncio.Task[None]] = {}
            while True:
                wanted = await replicas.get()
                self._note("", "" if wanted else self._nowhere)
                for replica in tasks.keys() - wanted:
                    tasks.pop(replica).cancel()
                    self._fleet.drop(replica)
                    self._fleet.set_trouble(replica, "")
                    self._observer(None)
                for replica in wanted - tasks.keys():
                    self._fleet.expect(replica)
                    tasks[replica] = following.create_task(self._one(replica, client))

    async def _one(self, replica: str, client: httpx.AsyncClient) -> None:
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
                        await self._heard(replica, client, away)
            finally:
                away.cancel()
            await asyncio.sleep(self._timing.pause)  # a stream that ends as soon as it begins is no reason to spin

    def _forget(self, replica: str) -> None:
        logger.warning("no reports of an xDS server", extra={"replica": replica})
        self._fleet.drop(replica)
        self._observer(None)

    def _note(self, replica: str, trouble: str) -> None:
        if self._fleet.set_trouble(replica, trouble):
            self._observer(None)

    async def _heard(self, replica: str, client: httpx.AsyncClient, away: asyncio.TimerHandle) -> None:
        """Read one stream to its end, and note why that could not be. Raises one of `_FAILURES`."""
        try:
            await self._listen(replica, client, away)
        except _FAILURES as error:
            self._note(replica, f"the xDS server {replica} cannot be reached: {_why(error)}")
            raise

    async def _listen(self, replica: str, client: httpx.AsyncClient, away: asyncio.TimerHandle) -> None:
        """Read one stream to its end. Raises one of `_FAILURES` while nothing was heard yet."""
        first: list[RouteReport] = []
        synced = False
        with contextlib.ExitStack() as quiet:
            async with client.stream("GET", f"http://{replica}{PATH}") as response:
                response.raise_for_status()
                async for line in response.aiter_lines():
                    report = _read(line)
                    if isinstance(report, ServerReport):
                        news = self._fleet.add_replica_report(replica, report, asyncio.get_running_loop().time())
                        if news and synced:
                            self._observer(None)
                    elif isinstance(report, LoadReport):
                        self._fleet.loads.add_report(report, datetime.now(UTC))
                        continue
                    elif synced:
                        self._observer(frozenset((self._fleet.add_report(replica, report),)))
                    else:
                        first.append(report)
                        continue
                    if not synced:
                        synced = True
                        away.cancel()
                        quiet.enter_context(contextlib.suppress(*_FAILURES))
                        self._fleet.set_trouble(replica, "")
                        self._fleet.complete(replica, frozenset(self._fleet.add_report(replica, one) for one in first))
                        self._observer(None)
                        logger.info("reports of an xDS server", extra={"replica": replica})
        if not synced:
            raise ValueError("ended before the whole list")


def _why(error: BaseException) -> str:
    """Say why something could not be reached: in the words of the operating system, where they are behind it."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.errno and behind.errno > 0:
            return os.strerror(behind.errno)
        behind = behind.__cause__ or behind.__context__
    return str(error) or type(error).__name__


def _read(line: str) -> RouteReport | LoadReport | ServerReport:
    """Read one line. Raises ValueError or InvalidObjectError for what is no report."""
    report = json.loads(line)
    if not isinstance(report, dict):
        raise ValueError("not a report")
    if "name" in report:
        return parse(RouteReport, report)
    return parse(LoadReport, report) if "node" in report else parse(ServerReport, report)
