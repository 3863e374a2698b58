"""What is promised of a case, what came of it, and whether the one holds of the other. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

# One is enough to be asked again; who had it first has another while the last has its own.
ENOUGH_CHECKS = 3

# So often has a server been checked that is well, at most, until another has been found ill. It takes two checks; a
# slow machine sees the last of them late.
_CHECKS_TO_NOTICE = 6

# From the share of requests that the split sends away, 0 to 1, to the least and the most of a share that is promised.
Range = Callable[[float], tuple[float, float]]


def none(_: float) -> tuple[float, float]:
    return 0.0, 0.0


def every(_: float) -> tuple[float, float]:
    return 1.0, 1.0


def some(_: float) -> tuple[float, float]:
    return 0.0, 1.0


def as_split(away: float) -> tuple[float, float]:
    return away, away


def at_most_of_replicas(away: float) -> tuple[float, float]:
    return 0, 1 - away


def nearly_as_split(away: float) -> tuple[float, float]:
    """What goes on failing is found out and left alone; see `Promise.met`."""
    return away, away + 0.05


def at_least_as_split(away: float) -> tuple[float, float]:
    return away, 1


@dataclass(frozen=True, slots=True)
class Promise:
    """What holds while the trouble lasts, and that nothing fails before and after it."""

    remote: Range
    """Of the answers, how many are the remote backend's."""
    failed: Range = none
    """Of the requests, how many fail."""
    errors: frozenset[str] = frozenset()
    """How those fail that do."""
    asked: tuple[int, int] = (1, 2)
    """How often a server is asked any one request, at least and at most."""
    met: int = 0
    """How many requests of each client may be the remote backend's in addition, before what fails is left alone. Each
    further time that Envoy leaves it alone, half of the clients may have met it: the slower the machine, the fewer are
    the requests between two of these."""
    again: float = math.inf
    """Of the requests, how many may be sent once more, 0 to 1, besides those that are `met`."""
    once_each: bool = False
    """In place of `failed`: each client meets at most one failure. Requests avoid what has been found ill."""
    leaves: bool = True
    """Whether the remote backend may be asked at all."""
    quick: float = math.inf
    """Seconds that nearly all of the requests that fail take, at most, more than the answers of the control."""


@dataclass(frozen=True, slots=True)
class Control:
    """What came of the requests of a model whose servers were well, at the same time: what the machine alone does."""

    failed: int = 0
    slowest: float = 0.0
    """Seconds of its slowest answer while the trouble lasted."""
    astray: float = 0.0
    """Of its answers meanwhile, the share that the other side gave because the first byte took too long, 0 to 1."""
    misled: int = 0
    """How many answers the other side gave for no such reason."""


@dataclass(frozen=True, slots=True)
class Notice:
    """When the health checks had found it."""

    after: float = 0.0
    """Seconds from its beginning, 0 if nobody looked."""
    patience: float = math.inf
    """Seconds that a client waits."""
    checks: int = 0
    """How often a server that was well had been checked meanwhile: the same clock, on the same machine."""
    failed_later: int = 0
    """How many requests failed that were sent later than that."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the requests of one cell. Seconds."""

    requests: int
    failed: Mapping[str, int]
    """How often each error came."""
    failed_outside: int
    """How many of them had nothing to do with the trouble: they came before it or after it."""
    clients: int
    away: int
    """Percent."""
    lasting: int
    """The requests while the trouble lasted, of which is what follows."""
    failed_lasting: int
    remote: int
    """The answers of the remote backend."""
    p99: float
    """From a request to its answer, or to its failure."""
    p99_failed: float
    asked: int
    """How often servers were asked."""
    asked_range: tuple[int, int]
    """How often for one request, at least and at most."""
    left: int
    """How often a remote backend was asked, from the first to the last request."""
    again: int = 0
    """How often Envoy sent a request once more."""
    ejections: int = 0
    """How often it left a replica alone."""
    cut: bool = False
    """Whether it took too long."""
    not_back: tuple[str, ...] = ()
    """The servers that got nothing any more when the trouble was over."""
    checks_until_back: int = 0
    """How many health checks a replica passed on the average before all were asked again, if all were found ill."""
    control: Control = Control()
    notice: Notice = Notice()

    def met(self, each: int) -> float:
        """How many requests what fails may have met, when it is left alone once `each` client has met it so often."""
        return self.clients * (each + max(0, self.ejections - 1) / 2) if each else 0

    @property
    def share_remote(self) -> float:
        """Of the answers; 0 without any."""
        return self.remote / max(1, self.lasting - self.failed_lasting)

    @property
    def asked_each(self) -> float:
        """The mean of a request."""
        return self.asked / max(1, self.lasting)


def breaches(outcome: Outcome, promise: Promise) -> Iterator[str]:
    """Say in words what of a promise does not hold."""
    if outcome.cut:
        yield "it took too long"
    if outcome.not_back:
        yield f"nothing came to {', '.join(outcome.not_back)} any more"
    if outcome.checks_until_back > ENOUGH_CHECKS:
        yield f"{outcome.checks_until_back} checks were passed before all were asked again"
    away, failed = outcome.away / 100, sum(outcome.failed.values())
    if unknown := {error: times for error, times in outcome.failed.items() if error not in promise.errors}:
        yield f"failed: {unknown}"
    if outcome.failed_outside:
        yield f"{outcome.failed_outside} failed before or after it"
    if promise.once_each:
        yield from _more_than_once_each(outcome, failed)
    elif not _within(outcome.failed_lasting, outcome.lasting, promise.failed, away):
        yield f"{outcome.failed_lasting} of {outcome.lasting} failed while it lasted"
    if outcome.failed_lasting and outcome.p99_failed > promise.quick + outcome.control.slowest:
        yield f"failures took {outcome.p99_failed:.2f} s"
    answered = outcome.lasting - outcome.failed_lasting
    astray = outcome.control.astray
    if not _within(
        outcome.remote,
        answered,
        promise.remote,
        away,
        less=astray,
        more=astray + outcome.met(promise.met) / max(1, answered),
    ):
        yield f"{outcome.share_remote:.1%} of the answers were the remote backend's"
    # With a split of 50/50 the share cannot tell: what chance makes of it is more than what fails does.
    if outcome.again > (promise.again + astray) * outcome.lasting + outcome.met(promise.met):
        yield f"{outcome.again} of {outcome.lasting} were sent once more"
    if outcome.left and not promise.leaves:
        yield f"a remote backend was asked {outcome.left} times"
    least, most = outcome.asked_range
    if least < promise.asked[0] or most > promise.asked[1]:
        yield f"a server was asked {least} to {most} times for one request"
    yield from _of_control(outcome.control)


def _of_control(control: Control) -> Iterator[str]:
    if control.failed:
        yield f"{control.failed} failed of a model whose servers were well"
    if control.misled:
        yield f"{control.misled} left of a model whose servers were well"


def _more_than_once_each(outcome: Outcome, failed: int) -> Iterator[str]:
    notice = outcome.notice
    if notice.failed_later:
        yield f"{notice.failed_later} failed that were sent when the health checks had found it"
    if notice.checks > _CHECKS_TO_NOTICE:
        yield f"found ill after {notice.checks} checks"
    # If the machine had a pause, who gave up before the health checks had found it has waited in vain once more.
    if failed > outcome.clients * (1 + notice.after // notice.patience):
        yield f"{failed} of {outcome.clients} clients' requests failed"


def _within(count: int, of: int, promised: Range, away: float, *, less: float = 0.0, more: float = 0.0) -> bool:
    """Tell whether a share is promised, give or take what chance makes of it (4.5 sigma) and one in a hundred.

    It may be `less` below it, and `more` above.
    """
    if not of:
        return True
    noise = 4.5 * math.sqrt(away * (1 - away) / of) + 0.01
    least, most = promised(away)
    # What is never to happen at all, and what is to be under a bound, is not given the one in a hundred.
    above = 0.0 if most == 0 or away == 0 else noise
    return least - noise - less <= count / of <= most + above + more
