"""What a decision is made from: values, measured at one moment."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from typing import Generic, Literal, TypeVar

from controller.api.contract.health import RemoteHealth, unknown
from controller.api.contract.route import Split

T = TypeVar("T")

# How far a counted share may be from the one that was decided: a tenth, or 4.5 standard deviations.
_TOLERANCE, _DEVIATIONS = 0.10, 4.5

# A side that a split gives some requests got none of so many: by chance that is so once in a million times.
_CHANCE = 1e-6

ENOUGH = 20
"""Fewer requests say nothing of a share."""

NOT_CHECKED = unknown("nothing reports the health of the remote backend yet")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A measured value and when it was measured."""

    value: T
    at: datetime


class Cause(StrEnum):
    """Why nothing is known, in one word: by what somebody has to do about it."""

    NO_SOURCE = "NoSource"
    """What would know it is not there: an API that is not served, a type that nothing here measures."""
    NOT_PERMITTED = "NotPermitted"
    """It lets nobody in who asks as we do."""
    NOT_ANSWERING = "NotAnswering"
    """It gives no answer, none in time, or says that it cannot now."""
    NO_SUCH_METRIC = "NoSuchMetric"
    """It answers, and knows no such metric."""
    NO_SAMPLE = "NoSample"
    """It answers, and nothing that counts was measured yet, or lately."""
    NOT_USABLE = "AnswerNotUsable"
    """It answers, and what it says is no number, too long, or not as it should be."""
    INVALID = "InvalidMetric"
    """What is asked for can be measured nowhere: its author has to change it."""
    NOT_MEASURED = "NotMeasured"
    """Nobody asks: there are more than are asked for, or we made a mistake."""
    SHARED = "SharedBackend"
    """What Envoys count at a remote backend is of several models together."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """No value, and why there is none: in words, and by its cause. Never the same as zero.

    It is `pending` while the first answer of a source, or the next report of an Envoy, is awaited: that is no news of
    anything.
    """

    why: str
    pending: bool = False
    cause: Cause = Cause.NOT_MEASURED


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """Endpoints of the local Service: how many there should be, and how many of them are ready.

    `leaving` are those that still answer while they terminate; while none is ready, they are the last choice.
    """

    ready: int
    total: int
    leaving: int = 0


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """One remote backend that requests may leave for: its name, and whether it answers."""

    name: str
    health: RemoteHealth = NOT_CHECKED


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Pods without a measurement that counts: how many, and what they request together of a resource."""

    pods: int = 0
    requests: Decimal = Decimal(0)


class WindowFrom(StrEnum):
    """Who says what a measurement is an average over."""

    SPEC = "Spec"
    """The author of the metric (`window`)."""
    SOURCE = "Source"
    """Whoever was asked, with each number."""
    QUERY = "Query"
    """The expression of PromQL that was asked, by its longest range."""
    ASSUMED = "Assumed"
    """Nobody, so it is taken to be one."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """What was measured of one metric of one object.

    `value` is the sum over so many `pods`, in the unit of the metric's quantity; without `pods` it is of the whole, and
    an average is one over the replicas. `requests` is what these pods request together of a resource, for a target in
    percent of that. The value is an average over `window`, as `window_from` says. Pods that are `missing` in it have no
    sample; those that are `unready` have one that says nothing of their work yet. What it `lacks` may be any number
    more: the value is the least that there is. `note` is what its source says beside the number.
    """

    value: Decimal
    pods: int | None = None
    requests: Decimal | None = None
    window: timedelta = timedelta(0)
    window_from: WindowFrom = WindowFrom.SOURCE
    missing: Uncounted = Uncounted()
    unready: Uncounted = Uncounted()
    lacks: Unknown | None = None
    note: str = ""


Sample = Known[Measurement] | Unknown
"""The newest measurement of a metric and when its window ended, or why there is none. What is missing is never zero."""


_LONGEST_NAME = 100
_LONGEST_LIST = 1_000
LONGEST_MESSAGE = 500
"""Characters of what is said of one metric."""


def cut(text: str, most: int) -> str:
    """Cut a text to so many characters."""
    return text if len(text) <= most else f"{text[: most - 3]}..."


def listed(said: Iterable[str], between: str = "; ") -> str:
    """Join what is said of several metrics, as much as fits into a thousand characters, and say how many are left.

    Those are in `status.signals`.
    """
    first, *others = [cut(one, _LONGEST_LIST) for one in said] or [""]
    words = [first]
    for one in others:
        if sum(map(len, words)) + len(one) + len(between) * len(words) > _LONGEST_LIST:
            break
        words.append(one)
    more = 1 + len(others) - len(words)
    return f"{between.join(words)}{f'{between}and {more} more' if more else ''}"


def in_words(name: str) -> str:
    """Write the name of a metric as sentences have it: on one line, and of a long expression of PromQL the beginning.

    A status has such sentences twenty times, of up to 32 metrics each (`listed`), and must not become too large to be
    stored.
    """
    beginning = name[:_LONGEST_NAME]
    if not beginning.isprintable():
        beginning = "".join(one if one.isprintable() else " " for one in beginning)
    return " ".join(beginning.split()) + ("..." if len(name) > _LONGEST_NAME else "")


@dataclass(frozen=True, slots=True)
class Signal:
    """One metric compared with its target: both as text, the outcome, and why it is unknown or else what its source
    says beside the number.

    `at` is when it was measured, as an average over `window`, which `window_from` says. `least` and `most` are the
    measured value in multiples of the target: if the pods without a measurement do nothing, and if they are at their
    target. Of one that is known `at_least` nobody knows how much it is at the most: it is never clear, and unknown
    below its target. A signal is `per_replica` if it is an average over them. `counts` is how many requests in flight
    the target is, over all replicas, where the metric counts just that, and 0 where it is another one. One that
    `saturates` shows of full replicas that they are, however much is sent to them: CPU. One that is unknown has a
    `cause`, and may be `pending`: see `Unknown`.
    """

    name: str
    target: str
    state: Literal["Clear", "Breached", "Unknown"]
    current: str | None = None
    message: str | None = None
    at: datetime | None = None
    window: timedelta = timedelta(0)
    window_from: WindowFrom = WindowFrom.SOURCE
    least: float = 0.0
    most: float = 0.0
    at_least: bool = False
    per_replica: bool = False
    counts: float = 0.0
    saturates: bool = False
    pending: bool = False
    cause: Cause | None = None

    @property
    def key(self) -> str:
        """What tells it from the other metrics of its object, but for those that differ in their selectors alone."""
        return f"{self.name} {self.target}"


@dataclass(frozen=True, slots=True)
class SentRequests:
    """How many requests Envoys sent to the replicas and to the remote backends in some seconds, but for those that
    failed there. `seconds` is 0 while it is not known in how many. `answered` had a good answer from a remote backend
    in that time, whenever they were sent: the others of `remote` may be on their way yet. `served` ended at a replica
    in that time, whenever they were sent there, and `in_flight` are there now; 0 where that is not known. Of the tries
    at replicas so many `failed`: each was asked of another or of a remote backend then, or that was the answer. A `run`
    is what one side got since the other one got something, over minutes; None where that is not known.
    """

    local: int
    remote: int
    seconds: float
    answered: int = 0
    served: int = 0
    in_flight: int = 0
    failed: int = 0
    run: SentRequests | None = None

    @property
    def total(self) -> int:
        """All of them."""
        return self.local + self.remote

    def arrived(self) -> SentRequests:
        """Return what was sent without those that may never get to a remote backend."""
        run = None if self.run and self.run.remote else self.run
        return replace(self, remote=min(self.remote, self.answered), run=run)

    def skips_a_side(self, split: Split) -> bool:
        """Whether a side that a split gives some got none of so many requests that it is not by chance."""
        if self.local and self.remote:
            return False
        unused = split.local if self.remote else split.remote
        return (1 - unused / 100) ** self.total < _CHANCE

    def deviates(self, split: Split) -> bool:
        """Whether so many requests went elsewhere than a split sends them that it is not by chance."""
        away = split.remote / 100
        spread = _DEVIATIONS * math.sqrt(away * (1 - away) / self.total) if self.total else 0.0
        return self.total >= ENOUGH and abs(self.remote - away * self.total) > max(_TOLERANCE, spread) * self.total


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision is made from, apart from what the object asks for and what is remembered.

    `remotes` are those that may be used, in the order in which they are tried: without any nothing may leave, and
    `no_remote` says why there is none. `traffic` is what was sent to each side since Envoys follow the present split.
    """

    local: LocalFacts
    remotes: tuple[RemoteFacts, ...] = ()
    no_remote: str = "there is no remote backend that may be used"
    signals: tuple[Signal, ...] = field(default=())
    traffic: SentRequests | Unknown = Unknown("nothing reports load")
