"""The record of one decision, which everything that explains it renders, and what is remembered of it."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, Field

from controller.api.contract.route import Shares, Split
from controller.api.schema.scalars import Percent
from controller.api.schema.values import ForeignValue
from controller.decision.stayed import Stayed, with_another


class Reason(StrEnum):
    """Why the split is what it is: the name of the rule that matched."""

    DISABLED = "Disabled"
    SHADOW = "Shadow"
    NOTHING_ANSWERS = "NothingAnswers"
    NO_REMOTE_BACKEND = "NoRemoteBackend"
    OVERRIDE = "Override"
    PAUSED = "Paused"
    LOCAL_DOWN = "LocalDown"
    REMOTE_DOWN = "RemoteDown"
    RECOVERING = "Recovering"
    OVERLOADED = "Overloaded"
    COOLING_DOWN = "CoolingDown"
    SIGNALS_UNKNOWN = "SignalsUnknown"
    STEADY = "Steady"


OF_THE_LAW = (Reason.OVERLOADED, Reason.COOLING_DOWN, Reason.SIGNALS_UNKNOWN, Reason.STEADY)
"""The rules that decide by what is measured."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule said: whether it matched, and in words with the numbers it saw."""

    reason: Reason
    matched: bool
    message: str


@dataclass(frozen=True, slots=True)
class WouldBe:
    """What would be decided if `behavior.mode` were not Shadow: the split, and the name of the rule."""

    split: Split
    reason: Reason

    def __str__(self) -> str:
        return f"{self.split} {self.reason}"


@dataclass(frozen=True, slots=True)
class Decision:
    """A split and everything there is to say about it.

    `shares` say which remote backend gets how much of what leaves. `returns` says what would change it; `wake_at` is
    when it may change with nothing else changing. `would_be` is what Shadow keeps from being. `measured` is what was
    measured now, where the message has the numbers of when it began; it is another with each measurement.
    """

    split: Split
    shares: Shares
    reason: Reason
    message: str
    returns: str
    verdicts: tuple[Verdict, ...]
    wake_at: datetime | None = None
    would_be: WouldBe | None = None
    measured: str = ""


class Overload(ForeignValue):
    """That requests leave for what was measured: since when, how many percent of them, and the measured cause in words.

    `clearedSince` is since when the demand that would come back is below every target. `rate` is how many requests a
    second there were when it was last known to be above one, `replicas` how many were ready then, and `ratios` what the
    demand was, in multiples of the targets. `probingSince` is since when a few requests stay to find out what the
    demand is, `steppedAt` when the share was last changed. `beforeSteps` is what left before a series of such changes
    that began at `seriesSince`; `belowSince` is since when less might leave. `overShare` was found to be too little at
    `overAt`, and `enoughShare` is the least that was enough since: both with as many requests as `rate` says. `misled`
    tells that it was found so on a way back, which a metric had called safe.
    `brokenOffAt` is when the demand was not below every target any more, or no less might leave, after one of these had
    been so (waits.py).
    `withdrawnAt` is when everything came back because no metric could be read.
    """

    since: AwareDatetime
    share: Percent
    cause: str
    cleared_since: AwareDatetime | None = None
    rate: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    replicas: Annotated[int, Field(ge=0)] = 0
    ratios: dict[str, Annotated[float, Field(allow_inf_nan=False)]] = {}
    probing_since: AwareDatetime | None = None
    stepped_at: AwareDatetime | None = None
    before_steps: Percent = 0
    series_since: AwareDatetime | None = None
    below_since: AwareDatetime | None = None
    over_share: Percent | None = None
    over_at: AwareDatetime | None = None
    enough_share: Percent | None = None
    misled: bool = False
    broken_off_at: AwareDatetime | None = None
    withdrawn_at: AwareDatetime | None = None

    def for_targets(self, keys: AbstractSet[str], ratios: Mapping[str, float]) -> Overload:
        """Return it without what was learned of a target that is no more: by an edit, or of a metric that is gone.

        `keys` are those of all metrics, and `ratios` what the demand is now, of those that are known.
        """
        if not ratios or self.ratios.keys() <= keys:
            return self
        kept = {key: ratio for key, ratio in self.ratios.items() if key in keys}
        learned = {"rate": None, "over_share": None, "over_at": None, "enough_share": None, "misled": False}
        return self.model_copy(update={**learned, "ratios": {**ratios, **kept}})


class Memory(ForeignValue):
    """The state of one object's decision between two evaluations, which a restart must not lose: `status.memory`.

    `split`, `reason` and `splitSince` are the last decision. `held` is the split that a pause holds.
    `localLostAt` is when the last ready replica went, until local serves in full again; `localBackAt` is when the first
    came back after that. `remoteLostAt` is when the remote backend that is tried first was found not to answer, until
    it is found to answer again: neither a correction nor a secret that is gone makes it so.
    `stayed` is what was local before `splitSince`, while something leaves, since the law changed the split itself.
    `breachedSince` is since when a metric is at or over its target while nothing leaves for it, `unbreachedAt` when
    that was so no longer before anything left, and `overload` what leaves. `returned` says when the last of it came
    back, and what was measured then, until something leaves again.
    """

    split: Split | None = None
    reason: Reason | None = None
    split_since: AwareDatetime | None = None
    held: Split | None = None
    local_lost_at: AwareDatetime | None = None
    local_back_at: AwareDatetime | None = None
    remote_lost_at: AwareDatetime | None = None
    stayed: tuple[Stayed, ...] | None = None
    breached_since: AwareDatetime | None = None
    unbreached_at: AwareDatetime | None = None
    overload: Overload | None = None
    returned: str | None = None

    def having(self, **values: object) -> Memory:
        """Return the memory with these values: this one if it has them, as of most evaluations."""
        own = vars(self)
        return self if all(own[name] == value for name, value in values.items()) else self.model_copy(update=values)

    def not_after(self, now: datetime) -> Memory:
        """Return the memory in which nothing is later than `now`, though the clock was set back."""
        overload = self.overload
        if overload is not None and (later := _later(overload, now)):
            overload = overload.model_copy(update=later)
        later = _later(self, now)
        stayed = tuple(one for one in self.stayed or () if one.since <= now) or None
        if not later and overload is self.overload and stayed == self.stayed:
            return self
        return self.model_copy(update={**later, "overload": overload, "stayed": stayed})

    def observing(self, ready: int, now: datetime) -> Memory:
        """Return the memory that has seen `ready` replicas at `now`."""
        if ready == 0:
            return self.having(local_lost_at=self.local_lost_at or now, local_back_at=None)
        if self.local_lost_at is not None and self.local_back_at is None:
            return self.having(local_back_at=now)
        return self

    def hearing(self, healthy: bool | None, now: datetime) -> Memory:
        """Return the memory that knows at `now` whether the remote backend answers; None: nobody knows."""
        lost = self.remote_lost_at if healthy is None else None if healthy else self.remote_lost_at or now
        return self.having(remote_lost_at=lost)

    def pausing(self, paused: bool) -> Memory:
        """Return the memory that holds the last split from when a pause began until it ends."""
        held = (self.held or self.split or Split.away(0)) if paused else None
        return self.having(held=held)

    def recovered(self) -> Memory:
        """Return the memory of a local side that serves in full again."""
        return self.having(local_lost_at=None, local_back_at=None)

    def deciding(self, decision: Decision, now: datetime, local: float, oldest: datetime | None) -> Memory:
        """Return the memory that has made `decision` at `now`.

        Until then `local` was what stayed, from 0 to 1, and nothing that is measured is of before `oldest`.

        A pause goes on with a split that was set by hand meanwhile, and with no other: a remote backend that could not
        be used for seconds, such as while its Secret was replaced, ends no pause.
        """
        since = self.split_since if self.split == decision.split and self.split_since else now
        held = decision.split if self.held and decision.reason is Reason.OVERRIDE else self.held
        stayed = self.stayed if self.overload else None
        if self.overload and self.split_since and since != self.split_since:
            by_law = self.reason in OF_THE_LAW and decision.reason in OF_THE_LAW
            last = Stayed(since=self.split_since, local=local)
            stayed = None if by_law else with_another(stayed or (), last, now, oldest)
        made = {"split": decision.split, "reason": decision.reason, "split_since": since, "held": held}
        return self.having(**made, stayed=stayed)


def _later(value: ForeignValue, now: datetime) -> dict[str, datetime]:
    """Say which moments of a value are after `now`, and set them to it."""
    return {name: now for name, moment in vars(value).items() if isinstance(moment, datetime) and moment > now}
