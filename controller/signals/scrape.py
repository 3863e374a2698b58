"""Metrics from the replicas' own `/metrics`, each model's asked together.

What answers is the model's author's, and may be slow, endless, wrong or hostile: each answer is bounded in time and
size, only what was asked for is kept of it, and a replica that gave none is asked less often. It is missing then, as a
pod without a sample is for the HorizontalPodAutoscaler; it never counts as zero.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from decimal import Decimal
from typing import NamedTuple

from controller.api.kubernetes.endpoints import Replica
from controller.api.resources.metrics import MetricSpec, ScrapeMetric
from controller.api.timing import PollTiming
from controller.decision.facts import Cause, Known, Measurement, Sample, Uncounted, Unknown
from controller.signals.bounded_http import BoundedHttp, BoundedRequest
from controller.signals.exposition import Page, PageError, Query, query_for
from controller.signals.places import Places
from controller.signals.poller import NOT_ASKED_YET, Poller, SourceError, Tell
from controller.signals.source import Subject
from controller.store.objects import ObjectRef

MOST_REPLICAS = 250
"""Replicas of one model that are asked."""
_MOST_BYTES = 8 * 2**20
_CONNECTIONS = 500
# So much of the time for all replicas of a model is for one of them.
_PATIENCE = 0.75
_LONGEST_REST = 8.0

_NO_CONNECTION = Unknown("no connection was free: too many replicas of this namespace are asked at once")

_HEADERS = {"accept": "text/plain;version=0.0.4, application/openmetrics-text;version=1.0.0;q=0.5, */*;q=0.1"}

_Found = Mapping[Query, Measurement | Unknown]


class _Place(NamedTuple):
    """What one model shows where."""

    ref: ObjectRef
    port: int | None
    path: str


@dataclass(slots=True)
class _Rest:
    """A replica that did not answer, and when it is asked again."""

    why: Unknown
    failures: int
    until: float


@dataclass(slots=True)
class _Job:
    """What is asked at one place: of which replicas, and what. Each query with when it was looked at last."""

    replicas: tuple[Replica, ...]
    looked_at: float
    queries: dict[Query, float] = field(default_factory=dict)
    rests: dict[str, _Rest] = field(default_factory=dict)


class Scrape:
    """Measures gauges of the ready replicas; what was looked at lately is asked for again and again.

    `clock` is UTC. Of so many `connections` a namespace has half at most, and what a replica has of `timing.answer`
    begins with its connection: that those of others keep silent is no fault of it.
    """

    def __init__(self, timing: PollTiming, clock: Callable[[], datetime], connections: int = _CONNECTIONS) -> None:
        self._timing = timing
        self._clock = clock
        self._http = BoundedHttp(_MOST_BYTES, connections)
        self._connections = Places(connections)
        # As long again for the connections of all replicas of a model.
        for_all = replace(timing, answer=2 * timing.answer)
        self._poller: Poller[_Place, _Found] = Poller(self._ask, for_all, clock, lambda place: place.ref.namespace)
        self._jobs: dict[_Place, _Job] = {}
        self._most_jobs = 100

    def sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        """See `MetricSource`."""
        source = metric.source
        assert isinstance(source, ScrapeMetric), "it is asked for its own type"
        query = query_for(source.metric.name, source.metric.selector.terms if source.metric.selector else ())
        if query.is_share and metric.target.type == "Value":
            why = "a share has no sum over the replicas: give an averageValue, such as 0.8"
            return Unknown(why, cause=Cause.INVALID)
        ready = tuple(one for one in subject.replicas if one.ready)
        if not ready:
            return Unknown("no replica is ready", cause=Cause.NO_SAMPLE)
        if len(ready) > MOST_REPLICAS:
            return Unknown(f"{len(ready)} replicas are too many to ask each: {MOST_REPLICAS} are")
        port = _port(source, subject)
        if isinstance(port, Unknown):
            return port
        place, at = _Place(subject.ref, port, source.path), now.timestamp()
        job = self._jobs.get(place)
        if job is None:
            self._forget(at)
            job = self._jobs[place] = _Job(ready, at)
        job.replicas, job.looked_at, job.queries[query] = ready, at, at
        answer = self._poller.look(place, subject.ref, now)
        if isinstance(answer, Unknown):
            return answer
        found = answer.value.get(query, NOT_ASKED_YET)
        return found if isinstance(found, Unknown) else Known(found, answer.at)

    async def run(self, tell: Tell) -> None:
        """See `PolledSource`."""
        async with self._http.opened():
            await self._poller.run(tell)

    def _forget(self, now: float) -> None:
        """Drop the jobs that nobody looked at, once there are twice as many as there were after the last time."""
        if len(self._jobs) < self._most_jobs:
            return
        since = now - self._timing.forget_after
        self._jobs = {place: job for place, job in self._jobs.items() if job.looked_at >= since}
        self._most_jobs = max(100, 2 * len(self._jobs))

    async def _ask(self, place: _Place) -> _Found:
        """Ask all replicas of a model. Raises SourceError when none answers."""
        job, now = self._jobs.get(place), self._clock().timestamp()
        if job is None:
            raise SourceError("nobody looks at it any more")
        job.queries = {query: at for query, at in job.queries.items() if now - at <= self._timing.forget_after}
        job.rests = {one.address: job.rests[one.address] for one in job.replicas if one.address in job.rests}
        queries, replicas = tuple(job.queries), job.replicas
        async with asyncio.TaskGroup() as group:
            asked = [group.create_task(self._ask_one(place, job, one, queries)) for one in replicas]
        pages = [task.result() for task in asked]
        answered = [page for page in pages if isinstance(page, Page)]
        if not answered:
            fault = next(page for page in pages if isinstance(page, Unknown))
            raise SourceError(f"no replica shows its metrics: {fault.why}", fault.cause)
        return {query: _measured(answered, query, len(pages)) for query in queries}

    async def _ask_one(self, place: _Place, job: _Job, replica: Replica, queries: Iterable[Query]) -> Page | Unknown:
        """Return what one replica shows, or why it shows nothing."""
        now, rest = self._clock().timestamp(), job.rests.get(replica.address)
        if rest and now < rest.until <= now + _LONGEST_REST:
            return rest.why
        is_asked = False
        try:
            async with (
                asyncio.timeout(self._timing.answer) as patience,
                self._connections.taken(place.ref.namespace),
            ):
                patience.reschedule(asyncio.get_running_loop().time() + _PATIENCE * self._timing.answer)
                is_asked = True
                page = await self._read(_url(place, replica), queries)
        except SourceError as error:
            why = Unknown(str(error), cause=error.cause)
        except PageError as error:
            why = Unknown(str(error), cause=Cause.NOT_USABLE)
        except TimeoutError:
            if not is_asked:
                return _NO_CONNECTION
            why = Unknown(f"no answer within {_PATIENCE * self._timing.answer:g} s", cause=Cause.NOT_ANSWERING)
        else:
            job.rests.pop(replica.address, None)
            return page
        failures = rest.failures + 1 if rest else 1
        pause = min(self._timing.every * 2 ** min(failures - 1, 10), _LONGEST_REST)
        job.rests[replica.address] = _Rest(why, failures, self._clock().timestamp() + pause)
        return why

    async def _read(self, url: str, queries: Iterable[Query]) -> Page:
        page = Page(queries)
        await self._http.read(BoundedRequest(url, _HEADERS), page.feed)
        page.end()
        return page


def _port(source: ScrapeMetric, subject: Subject) -> int | Unknown | None:
    """Find the number of a port; None is the one that serves."""
    if not isinstance(source.port, str):
        return source.port
    numbers = {number for name, number in subject.named_ports if name == source.port}
    if not numbers:
        return Unknown(f"no container of the workload has a port named {source.port}", cause=Cause.INVALID)
    if len(numbers) > 1:
        return Unknown(f"several ports are named {source.port}: give a number", cause=Cause.INVALID)
    return numbers.pop()


def _url(place: _Place, replica: Replica) -> str:
    host = f"[{replica.address}]" if ":" in replica.address else replica.address
    return f"http://{host}:{place.port or replica.port}{place.path}"


def _measured(pages: Iterable[Page], query: Query, replicas: int) -> Measurement | Unknown:
    """Add up what the replicas show of one metric."""
    levels: list[Decimal] = []
    why = ""
    for page in pages:
        try:
            levels.append(page.level(query))
        except PageError as error:
            why = why or str(error)
    if not levels:
        return Unknown(f"no replica shows it: {why}", cause=Cause.NO_SUCH_METRIC)
    missing = replicas - len(levels)
    note = f"{missing} of {replicas} replicas show none" if missing else ""
    return Measurement(sum(levels, Decimal(0)), pods=len(levels), missing=Uncounted(pods=missing), note=note)
