"""What Prometheus is told of remote backends."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from controller.api.contract.health import RemoteHealth
from controller.api.contract.reports import RemoteReport
from controller.api.contract.route import Remote, RouteKey
from xds_server.health.backend import Backend, backend_for
from xds_server.health.connection import Way
from xds_server.health.judgement import NO_TRAFFIC, Checked, Traffic, health_after, judged
from xds_server.health.outcome import Outcome
from xds_server.health.probe import Probe
from xds_server.health.schedule import interval_among, pause_after
from xds_server.resources.secret import Values


class CheckMetrics:
    """Whether each backend is healthy, how its checks ended and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._healthy = Gauge(
            "beamlit_remote_healthy",
            "1 while a remote backend answers, else 0.",
            ("backend", "host"),
            registry=registry,
        )
        self._checks = Counter(
            "beamlit_remote_checks", "Checks of remote backends, by what they found.", ("reason",), registry=registry
        )
        self._seconds = Histogram(
            "beamlit_remote_check_duration_seconds",
            "How long a check of a remote backend took.",
            buckets=(0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0),
            registry=registry,
        )

    def checked(self, outcome: Outcome | None, seconds: float) -> None:
        """Take in one check."""
        self._checks.labels(outcome.reason if outcome else "NothingNew").inc()
        self._seconds.observe(seconds)

    def tell(self, backend: Backend, healthy: bool) -> None:
        """Take in what is told of a backend now."""
        self._healthy.labels(backend.name, str(backend.place)).set(healthy)

    def forget(self, backend: Backend) -> None:
        """No model uses a backend any more, whether or not anything was told of it."""
        self._healthy.remove_by_labels({"backend": backend.name})


logger = logging.getLogger(__name__)

Observer = Callable[[Iterable[RouteKey]], None]

_AT_ONCE = 16


class Served(Protocol):
    """What is served: see `Delivery`."""

    def remote(self, model: RouteKey) -> tuple[Remote, Values] | None:
        """Return the remote side of a model with its credentials; None if there is none, or one is missing."""


@dataclass(slots=True, eq=False)
class _Followed:
    """One backend that is checked, for the models that use it."""

    probe: Probe
    checked: Checked = field(default_factory=Checked)
    health: RemoteHealth | None = None
    models: set[RouteKey] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


class Checks:
    """Checks each distinct backend, about as often as its health check says, and at once when it is new or changed.

    `observer` is told of the models whose backend is said something new of; it must not wait.
    """

    def __init__(
        self,
        served: Served,
        way: Way,
        clock: Callable[[], datetime],
        metrics: CheckMetrics,
        traffic: Traffic = NO_TRAFFIC,
    ) -> None:
        self.observer: Observer = lambda models: None
        self._served = served
        self._way = way
        self._clock = clock
        self._metrics = metrics
        self._traffic = traffic
        self._backends: dict[str, _Followed] = {}
        self._backend_of: dict[RouteKey, str] = {}
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Check until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for one in self._backends.values():
                self._start(one)
            await asyncio.Event().wait()

    def look_again(self, models: Iterable[RouteKey]) -> None:
        """Something changed for these models: the backend that they use, a credential of it, or nothing of that."""
        for model in models:
            backend = self._backend(model)
            before = self._backend_of.get(model)
            if before and (backend is None or backend.name != before):
                self._leave(model, before)
            if backend:
                self._join(model, backend)

    def before(self, observer: Observer) -> Observer:
        """Look at what changed before `observer` is told of it; it is told of what is found, too."""
        self.observer = observer

        def look(models: Iterable[RouteKey]) -> None:
            self.look_again(models)
            observer(models)

        return look

    def report(self, model: RouteKey, remote: Remote) -> RemoteReport | None:
        """Report on the backend of a model, by its route; None when nobody checks it."""
        name = self._backend_of.get(model)
        if name is None:
            return None
        health = self._backends[name].health or RemoteHealth()
        return RemoteReport(backend=remote.digest, name=remote.name, **dict(health))

    def _backend(self, model: RouteKey) -> Backend | None:
        found = self._served.remote(model)
        try:
            return backend_for(model, *found, self._way.timing) if found else None
        except Exception as error:
            # As for a check: one model is not checked, the others are, and delivered.
            logger.error("remote backend not checked", extra={"model": str(model), "error": type(error).__name__})
            return None

    def _join(self, model: RouteKey, backend: Backend) -> None:
        self._backend_of[model] = backend.name
        one = self._backends.get(backend.name)
        if one is None:
            one = self._backends[backend.name] = _Followed(Probe(backend, self._way))
            self._start(one)
        elif one.probe.backend != backend:
            one.probe, one.checked = Probe(backend, self._way, one.probe), one.checked.anew()
            self._start(one)
        one.models.add(model)

    def _leave(self, model: RouteKey, name: str) -> None:
        del self._backend_of[model]
        one = self._backends[name]
        one.models.discard(model)
        if not one.models:
            del self._backends[name]
            self._metrics.forget(one.probe.backend)
            if one.task:
                one.task.cancel()

    def _start(self, one: _Followed) -> None:
        """Begin to follow a backend, or begin anew."""
        if self._group:
            if one.task:
                one.task.cancel()
            one.task = self._group.create_task(self._follow(one))

    async def _follow(self, one: _Followed) -> None:
        while True:
            async with self._turns:
                in_doubt = await self._check(one)
            self._judge(one)
            interval = interval_among(one.probe.backend.interval, len(self._backends))
            timing = self._way.timing
            pause = pause_after(interval, timing.in_doubt if in_doubt else None, random.random())
            while pause > 0:
                await asyncio.sleep(min(pause, timing.judged_every))
                self._judge(one)
                pause -= timing.judged_every

    async def _check(self, one: _Followed) -> bool:
        """Check once; say whether the next check decides."""
        loop = asyncio.get_running_loop()
        start, outcome = loop.time(), None
        try:
            outcome = await one.probe.check()
        except Exception as error:
            # A mistake of ours says nothing of the backend. Its words might say too much.
            where = {"backend": one.probe.backend.name, "error": type(error).__name__}
            logger.error("remote backend not checked", extra=where)
        self._metrics.checked(outcome, loop.time() - start)
        if outcome:
            one.checked = one.checked.after(outcome)
        return outcome is not None and one.checked.in_doubt

    def _judge(self, one: _Followed) -> None:
        backend = one.probe.backend
        outcome = judged(one.checked.outcome, self._traffic.counts(backend.name))
        if outcome is None:
            return
        before, one.health = one.health, health_after(one.health, outcome, self._clock())
        if one.health is before:
            return
        self._metrics.tell(backend, outcome.healthy)
        if before is None or before.reason != outcome.reason:
            logger.log(
                logging.INFO if outcome.healthy else logging.WARNING,
                "remote backend judged",
                extra={
                    "backend": backend.name,
                    "host": str(backend.place),
                    "reason": outcome.reason,
                    "because": outcome.message,
                },
            )
        self.observer(tuple(one.models))
