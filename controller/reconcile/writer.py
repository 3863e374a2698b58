"""Writing plans: as many at once as the budget allows, of one object never two. What became of each is returned."""

from __future__ import annotations

import logging
import operator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import Enum

from controller.api.contract.route import Route
from controller.api.timing import Limits, StatusTiming
from controller.plan.plan import Plan
from controller.plan.transitions import urgency
from controller.reconcile.applier import Applier
from controller.runtime.budget import Urgency, WriteBudget
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import (
    AlreadyExistsError,
    ConflictError,
    FieldConflictError,
    NotFoundError,
    StoreError,
    UnavailableError,
)

logger = logging.getLogger(__name__)


class Turn(Enum):
    """Whether a plan may be written now."""

    UNCHANGED = "there is nothing to write"
    LATER = "not before some moment, for all that this object wrote itself"
    QUEUED = "when its turn comes, for all that others write"
    NOW = "now"


@dataclass(frozen=True, slots=True)
class Admission:
    """The answer to a plan: its turn, and for one that is later, when (`at`)."""

    turn: Turn
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What became of the writes of a plan: `error` is None when all of them were done."""

    plan: Plan
    error: Exception | None = None

    @property
    def superseded(self) -> bool:
        """Whether the object is no longer what the plan was made from: the newer one is on its way here."""
        # A field that is another manager's, or an object that is there already, does not go away by itself.
        lasting = isinstance(self.error, FieldConflictError | AlreadyExistsError)
        return isinstance(self.error, ConflictError | NotFoundError) and not lasting

    @property
    def unavailable(self) -> bool:
        """Whether the store gave no answer, or none for now."""
        return isinstance(self.error, UnavailableError)


@dataclass(slots=True)
class _Record:
    """What is remembered of one object: the version it was last written at, and the route that could not be written."""

    written_at: str = ""
    awaited_until: datetime | None = None
    failed: bool = False
    failed_route: Route | None = None


@dataclass(slots=True)
class Writer:
    """Admits plans to be written, and writes them.

    Of an object whose write is on its way back nothing is computed: it would be from what is no longer so.
    """

    applier: Applier
    limits: Limits
    timing: StatusTiming
    _budget: WriteBudget[ObjectRef] = field(init=False)
    _records: dict[ObjectRef, _Record] = field(default_factory=dict)
    _unavailable: bool = False

    def __post_init__(self) -> None:
        self._budget = WriteBudget(self.limits, operator.attrgetter("namespace"))

    def awaited_until(self, stored: StoredObject, now: datetime) -> datetime | None:
        """Say until when an object is waited for that was written and has not come back yet; None for any other."""
        record = self._records.get(stored.ref)
        if record is None or record.awaited_until is None:
            return None
        # A moment further ahead is one of a clock that was set back since.
        if record.written_at == stored.resource_version and now < record.awaited_until <= now + self._comes_back_within:
            return record.awaited_until
        record.awaited_until = None
        return None

    def admit(self, plan: Plan, rests_until: datetime | None, now: datetime) -> Admission:
        """Say whether a plan may be written now. If so, `write` it, and then `finish`.

        `rests_until` is when the object may be tried again whose last write failed.
        """
        urgent = urgency(plan.before, plan.status)
        if urgent is Urgency.NOTHING:
            self._budget.withdraw(plan.ref)
            return Admission(Turn.UNCHANGED)
        at = self._not_before(plan, urgent, rests_until, now)
        if at > now:
            self._budget.withdraw(plan.ref)
            return Admission(Turn.LATER, at)
        return Admission(Turn.NOW if self._budget.try_acquire(plan.ref, urgent, now) else Turn.QUEUED)

    async def write(self, plan: Plan) -> WriteResult:
        """Do the writes of a plan, in their order, up to the first that fails."""
        try:
            await self.applier.apply(plan.writes)
        except Exception as error:
            # Whatever is wrong with one object, or one write, the others go on.
            return WriteResult(plan, error)
        return WriteResult(plan)

    def finish(self, result: WriteResult, now: datetime) -> timedelta | None:
        """Record what became of a write; return the longest rest before it is tried again, None for the usual one."""
        ref = result.plan.ref
        self._budget.release(ref)
        if result.superseded:
            return None
        record = self._records.setdefault(ref, _Record())
        record.failed = result.error is not None
        if result.error is not None:
            record.failed_route = result.plan.status.route
            return timedelta(seconds=self.timing.longest_rest_while_away) if result.unavailable else None
        record.written_at = result.plan.stored.resource_version
        record.awaited_until = now + self._comes_back_within
        if self._unavailable:
            self._unavailable = False
            logger.info("statuses are written again")
        return None

    def log_failure(self, result: WriteResult, again_at: datetime) -> None:
        """Log a write that failed. While nothing answers one line says it for all."""
        if not (result.unavailable and self._unavailable):
            trace = None if isinstance(result.error, StoreError) else result.error
            again = {"object": str(result.plan.ref), "because": str(result.error), "again": f"{again_at:%H:%M:%S}"}
            logger.warning("status not written", extra=again, exc_info=trace)
        self._unavailable = self._unavailable or result.unavailable

    def withdraw(self, ref: ObjectRef) -> None:
        """Give up the place of an object in the queue of the budget: nothing is to be written of it for now."""
        self._budget.withdraw(ref)

    def turns(self, now: datetime) -> list[ObjectRef]:
        """Return the objects whose turn it is to write; they are to be looked at again."""
        return self._budget.grant_turns(now)

    def next_turn(self, now: datetime) -> datetime | None:
        """Say when the turn of some object comes by time alone."""
        return self._budget.next_turn_at(now)

    def forget(self, ref: ObjectRef) -> None:
        """Forget an object that is gone."""
        self._budget.forget(ref)
        self._records.pop(ref, None)

    @property
    def _comes_back_within(self) -> timedelta:
        return timedelta(seconds=self.timing.comes_back_within)

    def _not_before(self, plan: Plan, urgent: Urgency, rests_until: datetime | None, now: datetime) -> datetime:
        at = self._budget.not_before(plan.ref, urgent, now)
        record = self._records.get(plan.ref)
        # Traffic does not wait for the rest of a write that would have sent it elsewhere.
        failed_route = record.failed_route if record and record.failed else None
        is_another_route = urgent is Urgency.ROUTE and failed_route != plan.status.route
        return max(at, rests_until) if rests_until and not is_another_route else at
