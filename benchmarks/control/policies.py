"""Who says how much leaves: the product's own decision, loops that know the capacity, and nobody."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Literal, NamedTuple, Protocol

from benchmarks.control.replicas import Replicas
from controller.api.contract.health import RemoteHealth
from controller.api.resources.model import Behavior
from controller.decision import Facts, LocalFacts, Memory, RemoteFacts, SentRequests, Signal, decide
from controller.intent.intent import Terms

REPORT = 0.5
"""Seconds between two reports of load, and between two decisions."""
_WINDOW = 10.0
_CPU_EVERY, _CPU_LATE, _CPU_TARGET = 15.0, 2.5, 0.8
_QUEUE_EVERY = 1.0
_MEAN_EVERY, _MEAN_OVER = 5.0, 60.0
"""How often the product asks Prometheus, and the range of a query such as `avg_over_time(x[1m])`, in seconds."""
_STEP = 1.0
"""The product's `stepInterval`, in seconds."""
_AUTOSCALER_TOLERANCE, _LEAST_STAYS = 0.1, 0.05
_START = datetime(2026, 1, 1, tzinfo=UTC)


class Sent(NamedTuple):
    """How many requests were sent to each side since the last look."""

    local: int
    remote: int


class Law(Protocol):
    """Says, at each look, how many percent leave from now on."""

    def __call__(self, replicas: Replicas, sent: Sent, at: float) -> float:
        """Look at `at`."""
        ...


@dataclass(slots=True)
class Loop:
    """A loop that knows the capacity: it sends away what was too much in the last interval, and all while any waits."""

    every: float
    _share: float = 0.0
    _count: int = 0
    _next: float = 0.0

    def __call__(self, replicas: Replicas, sent: Sent, at: float) -> float:
        """Look at `at`."""
        self._count += sum(sent)
        if at >= self._next:
            demand = self._count / self.every / replicas.pool.capacity
            queued = replicas.in_flight(at) > replicas.pool.size
            self._share = 100.0 if queued else 100 * max(1 - 1 / demand, 0.0) if demand else 0.0
            self._next, self._count = at + self.every, 0
        return self._share


@dataclass(slots=True)
class Told:
    """A law that is told the demand itself, of the windows of CPU and as late, and sends away what is above its target.

    CPU shows no more than that every place is busy; this is told how many requests came. It is exact about what was
    measured, and at once: who is overloaded less with such a metric sends away more than was measured.
    """

    _count: int = 0
    _share: float = 0.0
    _pending: deque[tuple[float, float]] = field(default_factory=deque)

    def __call__(self, replicas: Replicas, sent: Sent, at: float) -> float:
        """Look at `at`."""
        self._count += sum(sent)
        if at % _CPU_EVERY == 0:
            demand = self._count / _CPU_EVERY / replicas.pool.capacity
            self._pending.append((at + _CPU_LATE, 100 * max(1 - _CPU_TARGET / demand, 0.0) if demand else 0.0))
            self._count = 0
        while self._pending and self._pending[0][0] <= at:
            self._share = self._pending.popleft()[1]
        return self._share


@dataclass(slots=True)
class Cpu:
    """Which part of the places was busy, in multiples of the target: over a window, and known some seconds later."""

    newest: float | None = None
    _pending: deque[tuple[float, float]] = field(default_factory=deque)

    def is_new(self, replicas: Replicas, at: float) -> bool:
        """Look at `at`; say whether there is a measurement that there was not before."""
        if at and at % _CPU_EVERY == 0:
            self._pending.append((at + _CPU_LATE, replicas.busy(at - _CPU_EVERY, at) / _CPU_TARGET))
        if not self._pending or self._pending[0][0] > at:
            return False
        self.newest = self._pending.popleft()[1]
        return True


@dataclass(slots=True)
class Autoscaler:
    """A loop that is told no more than the product: it does with the share what a HorizontalPodAutoscaler does with
    replicas.

    At each look, what stays is multiplied by the target and divided by the newest measurement of CPU, unless they are
    within a tenth of each other. It has no memory, so what was done already is done again with the same measurement.
    """

    every: float
    _stays: float = 1.0
    _next: float = 0.0
    _cpu: Cpu = field(default_factory=Cpu)

    def __call__(self, replicas: Replicas, sent: Sent, at: float) -> float:
        """Look at `at`."""
        self._cpu.is_new(replicas, at)
        if at >= self._next:
            self._next = at + self.every
            used = self._cpu.newest
            if used is not None and abs(used - 1) > _AUTOSCALER_TOLERANCE:
                self._stays = min(max(self._stays / used if used else 1.0, _LEAST_STAYS), 1.0)
        return 100 * (1 - self._stays)


Kind = Literal["in flight", "cpu", "queue", "1 min mean"]


@dataclass(slots=True)
class Counted:
    """A law that is told what no metric tells: how many requests a second the replicas bear, and each one that came
    since the metric passed its target.

    It looks at the metric as often as the product and steps once a second, as that does; what leaves is exact about the
    number of requests. So what keeps it from being right at once is chance, and that it is not told when the demand
    rose.
    """

    kind: Kind
    _share: float = 0.0
    _count: int = 0
    _since: float | None = None
    _next: float = 0.0

    def __call__(self, replicas: Replicas, sent: Sent, at: float) -> float:
        """Look at `at`."""
        if not self._share and not self._is_over(replicas, at):
            self._since = None
            return 0.0
        if self._since is None:
            self._since, self._count, self._next = at - REPORT, 0, at
        self._count += sum(sent)
        if at >= self._next:
            demand = self._count / (at - self._since) / replicas.pool.capacity
            self._share, self._next = 100 * max(1 - BEARS / demand, 0.0) if demand else 0.0, at + _STEP
        return self._share

    def _is_over(self, replicas: Replicas, at: float) -> bool:
        if self.kind == "queue":
            return at % _QUEUE_EVERY == 0 and replicas.waiting(at) >= replicas.pool.replicas
        return replicas.in_flight(at) >= replicas.pool.size


@dataclass(slots=True)
class Product:
    """The product's decision, with one metric or none: what is measured, how late and over which window, is as it is.

    `writes` counts how often what is remembered changed: each time is a status that is written.
    """

    behavior: Behavior
    kind: Kind | None
    memory: Memory = field(default_factory=Memory)
    writes: int = 0
    _signal: Signal | None = None
    _sent: deque[tuple[float, Sent, int]] = field(default_factory=deque)
    _flying: int = 0
    _cpu: Cpu = field(default_factory=Cpu)
    _flown: deque[float] = field(default_factory=lambda: deque(maxlen=round(_MEAN_OVER / REPORT)))

    def __call__(self, replicas: Replicas, sent: Sent, at: float) -> float:
        """Look at `at`."""
        now = _START + timedelta(seconds=at)
        flying = replicas.in_flight(at)
        self._sent.append((at, sent, sent.local + self._flying - flying))
        self._flying = flying
        local = LocalFacts(replicas.pool.replicas, replicas.pool.replicas)
        remote = RemoteFacts("remote", RemoteHealth(healthy=True))
        self._measure(replicas, at)
        signals = (self._signal,) if self._signal else ()
        facts = Facts(local, (remote,), signals=signals, traffic=self._traffic(at))
        decision, memory = decide(Terms(True, behavior=self.behavior), facts, self.memory, now)
        self.writes += memory != self.memory
        self.memory = memory
        return decision.split.remote

    def _measure(self, replicas: Replicas, at: float) -> None:
        pool = replicas.pool
        if self.kind == "in flight":
            flying = _signal("in flight", replicas.in_flight(at) / pool.size, at)
            self._signal = replace(flying, counts=pool.size)
        elif self.kind == "queue":
            if at % _QUEUE_EVERY == 0:
                self._signal = _signal("queue", replicas.waiting(at) / pool.replicas, at)
        elif self.kind == "1 min mean":
            self._flown.append(replicas.in_flight(at) / pool.size)
            if at % _MEAN_EVERY == 0:
                mean = sum(self._flown) / len(self._flown)
                self._signal = _signal("mean", mean, at, timedelta(seconds=_MEAN_OVER))
        elif self.kind == "cpu" and self._cpu.is_new(replicas, at) and self._cpu.newest is not None:
            cpu = _signal("cpu", self._cpu.newest, at - _CPU_LATE, timedelta(seconds=_CPU_EVERY))
            self._signal = replace(cpu, saturates=True)

    def _traffic(self, at: float) -> SentRequests:
        since = self.memory.split_since
        begun = max(at - _WINDOW, (since - _START).total_seconds() + 2 * REPORT if since else 0.0)
        while self._sent and self._sent[0][0] <= at - _WINDOW:
            self._sent.popleft()
        counted = [(sent, served) for moment, sent, served in self._sent if moment > begun]
        local, remote = sum(sent.local for sent, _ in counted), sum(sent.remote for sent, _ in counted)
        served = sum(served for _, served in counted)
        return SentRequests(local, remote, len(counted) * REPORT, served=served, in_flight=self._flying)


def _signal(name: str, ratio: float, at: float, window: timedelta = timedelta(0)) -> Signal:
    now = _START + timedelta(seconds=at)
    state: Literal["Breached", "Clear"] = "Breached" if ratio >= 1 else "Clear"
    return Signal(name, "1", state, f"{ratio:.2f}", at=now, window=window, least=ratio, most=ratio, per_replica=True)


@dataclass(frozen=True, slots=True)
class Policy:
    """A law, made anew for each input, and whether Envoy sends away what the replicas have no place for.

    `every` is how many seconds there are between two measurements of its metric, `kind` which that is, if it matters,
    and `target` which part of the places is taken when it is at its target.
    """

    name: str
    law: Callable[[], Law]
    overflow: bool = False
    proportional: bool = False
    product: bool = True
    every: float = REPORT
    kind: Kind | None = None
    target: float = 1.0

    @property
    def limited(self) -> bool:
        """Whether it is the product with a limit on requests in flight."""
        return self.product and self.overflow


def _nothing(replicas: Replicas, sent: Sent, at: float) -> float:
    return 0.0


# How many requests in flight each replica takes with a limit; it is Envoy's, and a law asks only whether there is one.
_LIMIT = 8

TOLD = "told the demand, as late as CPU"
LOOP_OF_CPU = "loop, 5 s, cpu"
LIMIT_ALONE = "no metric, overflow"

BEARS = _CPU_TARGET
"""Which part of their capacity the replicas are kept at, about, by each of the metrics."""


def _threshold(kind: Kind, percentage: int, *, limit: bool = False, waits: Behavior | None = None) -> Callable[[], Law]:
    most = _LIMIT if limit else None
    behavior = (waits or Behavior()).model_copy(update={"percentage": percentage, "max_requests_per_replica": most})
    return lambda: Product(behavior, kind)


def _proportional(kind: Kind, *, limit: bool = False) -> Callable[[], Law]:
    return lambda: Product(Behavior(mode="Proportional", max_requests_per_replica=_LIMIT if limit else None), kind)


_TOLD = Policy(TOLD, Told, product=False, every=_CPU_EVERY, kind="cpu")


def _counted(kind: Kind, every: float) -> Policy:
    name = f"told the requests since, {kind}"
    return Policy(name, lambda: Counted(kind), product=False, every=every, kind=kind)


AFTER_A_STEP: Mapping[Kind, Policy] = {
    "in flight": _counted("in flight", REPORT),
    "cpu": _TOLD,
    "queue": _counted("queue", _QUEUE_EVERY),
    "1 min mean": _counted("in flight", _MEAN_EVERY),
}
"""For each metric a law that is told more than it, and that the product is compared with after a step."""

POLICIES = (
    Policy("no controller", lambda: _nothing, product=False),
    Policy("loop, 15 s", lambda: Loop(15.0), product=False),
    Policy("loop, 5 s", lambda: Loop(5.0), product=False),
    _TOLD,
    Policy("loop, 15 s, cpu", lambda: Autoscaler(15.0), product=False, kind="cpu"),
    Policy(LOOP_OF_CPU, lambda: Autoscaler(5.0), product=False, kind="cpu"),
    Policy("oracle", lambda: _nothing, overflow=True, product=False),
    Policy("Threshold 50, in flight", _threshold("in flight", 50)),
    Policy("Threshold 100, in flight", _threshold("in flight", 100)),
    Policy("Threshold 50, cpu", _threshold("cpu", 50), target=_CPU_TARGET),
    Policy("Threshold 100, cpu", _threshold("cpu", 100), target=_CPU_TARGET),
    Policy("Threshold 50, queue", _threshold("queue", 50)),
    Policy("Threshold 100, queue", _threshold("queue", 100)),
    Policy(
        "Threshold 100, in flight, after 5s",
        _threshold("in flight", 100, waits=Behavior(offload_after=timedelta(seconds=5))),
    ),
    Policy(
        "Threshold 100, in flight, back 2m",
        _threshold("in flight", 100, waits=Behavior(restore_after=timedelta(minutes=2))),
    ),
    Policy(
        "Threshold 50, queue, back 10m", _threshold("queue", 50, waits=Behavior(restore_after=timedelta(minutes=10)))
    ),
    Policy("Proportional, in flight", _proportional("in flight"), proportional=True, kind="in flight"),
    Policy("Proportional, cpu", _proportional("cpu"), proportional=True, every=_CPU_EVERY, kind="cpu"),
    Policy("Proportional, queue", _proportional("queue"), proportional=True, every=_QUEUE_EVERY, kind="queue"),
    Policy("Threshold 50, 1 min mean", _threshold("1 min mean", 50)),
    Policy(
        "Proportional, 1 min mean",
        _proportional("1 min mean"),
        proportional=True,
        every=_MEAN_EVERY,
        kind="1 min mean",
    ),
    Policy(LIMIT_ALONE, lambda: Product(Behavior(max_requests_per_replica=_LIMIT), None), overflow=True),
    Policy("Threshold 50, in flight, overflow", _threshold("in flight", 50, limit=True), overflow=True),
    Policy("Threshold 50, cpu, overflow", _threshold("cpu", 50, limit=True), overflow=True),
    Policy("Threshold 50, queue, overflow", _threshold("queue", 50, limit=True), overflow=True),
    Policy("Proportional, in flight, overflow", _proportional("in flight", limit=True), overflow=True),
    Policy("Proportional, cpu, overflow", _proportional("cpu", limit=True), overflow=True),
    Policy("Proportional, queue, overflow", _proportional("queue", limit=True), overflow=True),
)
