"""The checks of remote backends: who is checked, when, and what is found, as reports and as metrics."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client import Counter as CounterMetric

from controller.api.contract.health import RemoteHealth
from controller.api.contract.reports import RemoteReport
from controller.api.contract.route import Remote, RouteKey
from xds_server.health.backend import Backend, backend_for
from xds_server.health.belief import Belief
from xds_server.health.connection import Connector
from xds_server.health.evidence import Evidence
from xds_server.health.judgement import NO_TRAFFIC, CheckHistory, CheckParts, Traffic, pause_after
from xds_server.health.outcome import CheckOutcome
from xds_server.health.probe import BackendProbe
from xds_server.health.turns import FairTurns
from xds_server.resources.backend_names import backend_name
from xds_server.resources.names import Side
from xds_server.resources.secret import Values

logger = logging.getLogger(__name__)

_AT_ONCE = 16
_OF_ONE_NAMESPACE = 8
"""Of those at once: a namespace in which nothing answers leaves turns to others."""
_JUDGED_AT_ONCE = 100
"""Namespaces for which a backend is judged before others have their turn: a few milliseconds."""
_NAMED = 10
"""Namespaces that are named in one line of the log."""


class CheckMetrics:
    """Whether each backend is healthy, how its checks ended and how long they took."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._healthy = Gauge(
            "beamlit_remote_healthy",
            "1 while a remote backend answers a namespace, else 0.",
            ("backend", "namespace", "host"),
            registry=registry,
        )
        self._checks = CounterMetric(
            "beamlit_remote_checks", "Checks of remote backends, by what they found.", ("reason",), registry=registry
        )
        self._seconds = Histogram(
            "beamlit_remote_check_duration_seconds",
            "How long a check of a remote backend took.",
            buckets=(0.005, 0.02, 0.1, 0.5, 1.0, 2.0, 5.0),
            registry=registry,
        )

    def add_check(self, outcome: CheckOutcome | None, seconds: float) -> None:
        """Count one check."""
        self._checks.labels(outcome.reason if outcome else "NothingNew").inc()
        self._seconds.observe(seconds)

    def set_health(self, cluster: str, namespace: str, backend: Backend, healthy: bool) -> None:
        """Set whether a backend is healthy to those of one namespace who use it."""
        self._healthy.labels(cluster, namespace, str(backend.address)).set(healthy)

    def remove(self, cluster: str, namespace: str) -> None:
        """Forget a backend that no route of a namespace uses any more, whether or not it had a health."""
        self._healthy.remove_by_labels({"backend": cluster, "namespace": namespace})


@dataclass(frozen=True, slots=True)
class CheckInputs:
    """Where checks get what they cannot know: connections, how real requests ended, the time, and chance (0 to 1)."""

    connector: Connector
    clock: Callable[[], datetime]
    chance: Callable[[], float]
    traffic: Traffic = NO_TRAFFIC


@dataclass(slots=True, eq=False)
class _CheckedBackend:
    """One backend that is checked, for all who use it."""

    probe: BackendProbe
    history: CheckHistory = field(default_factory=CheckHistory)
    beliefs: dict[str, Belief] = field(default_factory=dict)
    """What is believed of it, by namespace: each that uses it has one."""
    task: asyncio.Task[None] | None = None
    waits: bool = False
    """Whether it waits for its turn."""


class HealthChecks:
    """Checks each distinct backend, about as often as its health check says, and at once when it is new or changed.

    What a check finds is everybody's, what requests meet is believed in their namespace alone (docs/adr/0086).

    Namespaces have their parts of the checks, so that none is checked late because of another (docs/adr/0033); a
    backend that several use is checked by the part of whoever has the most left. `on_change` is called with the routes
    whose backend has another health; it must not wait.
    """

    def __init__(
        self, inputs: CheckInputs, metrics: CheckMetrics, on_change: Callable[[frozenset[RouteKey]], None]
    ) -> None:
        self._inputs = inputs
        self._metrics = metrics
        self._on_change = on_change
        self._backends: dict[str, _CheckedBackend] = {}
        self._backend_of: dict[Side, str] = {}
        self._users_of: dict[RouteKey, set[Side]] = {}
        self._turns = FairTurns(_AT_ONCE, _OF_ONE_NAMESPACE)
        self._parts = CheckParts(inputs.connector.timing.least_interval)
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Check until cancelled."""
        async with asyncio.TaskGroup() as self._group:
            for one in self._backends.values():
                self._start(one)
            await asyncio.Event().wait()

    def set_remotes(self, key: RouteKey, remotes: Iterable[tuple[Remote, Values]]) -> None:
        """Set the remote backends that a route is served with, each with its credentials: none if it is not served."""
        uses = {Side(key, remote.name): (remote, self._backend(key, remote, values)) for remote, values in remotes}
        for side in self._users_of.pop(key, set()):
            _, backend = uses.get(side, (None, None))
            if backend is None or backend.name != self._backend_of[side]:
                self._leave(side, self._backend_of[side])
        for side, (remote, backend) in uses.items():
            if backend:
                self._join(side, backend, backend_name(key, remote))

    def report(self, key: RouteKey, remote: Remote) -> RemoteReport | None:
        """Report on a remote backend of a route; None when nobody checks it."""
        name = self._backend_of.get(Side(key, remote.name))
        if name is None:
            return None
        believed = self._backends[name].beliefs[key.namespace]
        health = believed.health or RemoteHealth()
        return RemoteReport(backend=remote.digest, name=remote.name, by_requests=believed.by_requests, **dict(health))

    def _backend(self, key: RouteKey, remote: Remote, values: Values) -> Backend | None:
        try:
            return backend_for(key, remote, values, self._inputs.connector.timing)
        except Exception as error:
            # As for a check: one route is not checked, the others are, and published.
            logger.error("remote backend not checked", extra={"model": str(key), "error": type(error).__name__})
            return None

    def _join(self, side: Side, backend: Backend, cluster: str) -> None:
        self._backend_of[side] = backend.name
        self._users_of.setdefault(side.key, set()).add(side)
        one = self._backends.get(backend.name)
        if one is None:
            one = self._backends[backend.name] = _CheckedBackend(BackendProbe(backend, self._inputs.connector))
            self._start(one)
        elif one.probe.backend != backend:
            one.probe = BackendProbe(backend, self._inputs.connector, one.probe)
            one.history = one.history.of_changed_backend()
            # Its name is that of before, so what changed is a Secret.
            began = asyncio.get_running_loop().time() + self._inputs.connector.timing.secret_taken
            for belief in one.beliefs.values():
                belief.evidence = Evidence(began=began)
            self._start(one)
        namespace = side.key.namespace
        if namespace in one.beliefs:
            one.beliefs[namespace].users.add(side)
            return
        belief = one.beliefs[namespace] = Belief(cluster, {side})
        self._parts.add(namespace)
        if one.history.outcome:
            # What the checks found is known to who comes later, too.
            self._judge(one, namespace)
        if one.waits:
            # It may be the turn of this namespace sooner.
            self._start(one)

    def _leave(self, side: Side, name: str) -> None:
        del self._backend_of[side]
        one, namespace = self._backends[name], side.key.namespace
        belief = one.beliefs[namespace]
        belief.users.discard(side)
        if not belief.users:
            del one.beliefs[namespace]
            self._parts.remove(namespace)
            self._metrics.remove(belief.cluster, namespace)
        if not one.beliefs:
            del self._backends[name]
            if one.task:
                one.task.cancel()

    def _start(self, one: _CheckedBackend) -> None:
        """Begin to check a backend, or begin anew."""
        if self._group:
            if one.task:
                one.task.cancel()
            one.task = self._group.create_task(self._check_again_and_again(one))

    async def _check_again_and_again(self, one: _CheckedBackend) -> None:
        timing = self._inputs.connector.timing
        while True:
            one.waits = True
            async with self._turns.turn(one.beliefs):
                one.waits = False
                in_doubt = await self._check(one)
            await self._assess(one)
            interval = self._parts.interval(one.probe.backend.interval, one.beliefs)
            pause = pause_after(interval, timing.in_doubt if in_doubt else None, self._inputs.chance())
            while pause > 0:
                await asyncio.sleep(min(pause, timing.assessed_every))
                await self._assess(one)
                pause -= timing.assessed_every

    async def _check(self, one: _CheckedBackend) -> bool:
        """Check once; tell whether the next check decides."""
        loop = asyncio.get_running_loop()
        start, outcome = loop.time(), None
        try:
            outcome = await one.probe.check(tuple(one.beliefs))
        except Exception as error:
            # A mistake of ours says nothing of the backend. Its words might say too much.
            where = {"backend": one.probe.backend.name, "error": type(error).__name__}
            logger.error("remote backend not checked", extra=where)
        self._metrics.add_check(outcome, loop.time() - start)
        if outcome:
            one.history = one.history.after(outcome)
        return outcome is not None and one.history.in_doubt

    async def _assess(self, one: _CheckedBackend) -> None:
        """Judge a backend for each namespace that uses it, some at a time, and tell those for whom anything is new."""
        namespaces = tuple(one.beliefs)
        for start in range(0, len(namespaces), _JUDGED_AT_ONCE):
            if start:
                await asyncio.sleep(0)
            self._assess_for(one, [each for each in namespaces[start : start + _JUDGED_AT_ONCE] if each in one.beliefs])

    def _assess_for(self, one: _CheckedBackend, namespaces: Iterable[str]) -> None:
        changed: set[RouteKey] = set()
        news: dict[tuple[str, CheckOutcome], list[str]] = {}
        for namespace in namespaces:
            belief = one.beliefs[namespace]
            before, was_by_requests = belief.health, belief.by_requests
            outcome = self._judge(one, namespace)
            if outcome is None or (belief.health is before and belief.by_requests is was_by_requests):
                continue
            changed.update(side.key for side in belief.users)
            if before is None or before.reason != outcome.reason:
                news.setdefault((belief.cluster, outcome), []).append(namespace)
        for (cluster, outcome), whose in news.items():
            logger.log(
                logging.INFO if outcome.healthy else logging.WARNING,
                "remote backend checked",
                extra={
                    "backend": cluster,
                    "namespaces": " ".join(sorted(whose)[:_NAMED]),
                    "host": str(one.probe.backend.address),
                    "reason": outcome.reason,
                    "because": outcome.message,
                },
            )
        if changed:
            self._on_change(frozenset(changed))

    def _judge(self, one: _CheckedBackend, namespace: str) -> CheckOutcome | None:
        """Judge a backend for those of one namespace who use it; None while nothing is known."""
        belief, inputs = one.beliefs[namespace], self._inputs
        before, now = belief.health, asyncio.get_running_loop().time()
        outcome = belief.judge(one.history.outcome, inputs.traffic, inputs.connector.timing, now, inputs.clock())
        if outcome and belief.health is not before:
            self._metrics.set_health(belief.cluster, namespace, one.probe.backend, outcome.healthy)
        return outcome
