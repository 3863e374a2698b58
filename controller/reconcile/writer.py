"""Writing statuses in the background: as many at once as the budget allows, of one model never two."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from controller.api.contract.route import Route
from controller.api.contract.status import ModelDeploymentStatus
from controller.observe.index import Seen
from controller.plan.changes import urgency
from controller.plan.transitions import log_transitions, transitions
from controller.reconcile.surroundings import Surroundings
from controller.runtime.budget import Urgency, WriteBudget
from controller.runtime.queue import Queue
from controller.store.objects import ObjectRef
from controller.store.protocol import ConflictError, NotFoundError, ObjectStore, StoreError, UnavailableError

logger = logging.getLogger(__name__)

Start = Callable[[Coroutine[Any, Any, None]], None]


@dataclass(frozen=True, slots=True)
class Wish:
    """The status that a model shall have."""

    seen: Seen
    status: ModelDeploymentStatus

    @property
    def ref(self) -> ObjectRef:
        """The model."""
        return self.seen.stored.ref


class StatusWriter:
    """Writes what differs, when its turn comes. Tells the queue how it went; a model in work is one being written.

    Of a model whose write is on its way nothing is computed: it would be from what is no longer so.
    """

    def __init__(self, store: ObjectStore, queue: Queue[ObjectRef], around: Surroundings) -> None:
        self._store = store
        self._queue = queue
        self._around = around
        self._budget: WriteBudget[ObjectRef] = WriteBudget(around.limits)
        self._comes_back_within = timedelta(seconds=around.timing.comes_back_within)
        self._longest_rest_while_away = timedelta(seconds=around.timing.longest_rest_while_away)
        self._expected: dict[ObjectRef, tuple[str, datetime]] = {}
        self._failed: dict[ObjectRef, Route | None] = {}
        self._away = False

    def expected_until(self, seen: Seen, now: datetime) -> datetime | None:
        """Say until when a model is waited for that was written and has not come back yet; None for any other."""
        ref = seen.stored.ref
        version, until = self._expected.get(ref, ("", now))
        # A moment further ahead is one of a clock that was set back since.
        if version == seen.stored.resource_version and now < until <= now + self._comes_back_within:
            return until
        self._expected.pop(ref, None)
        return None

    def write(self, wish: Wish, start: Start, now: datetime) -> None:
        """Write a status if it is another one, now or when its turn comes; `start` is how a write becomes a task."""
        ref, urgent = wish.ref, urgency(wish.seen.status, wish.status)
        if urgent is Urgency.NOTHING:
            self._budget.leave(ref)
            self._queue.succeeded(ref)
            return
        at = self._not_before(wish, urgent, now)
        if at > now:
            self._budget.leave(ref)
            self._queue.add_at(ref, at)
        elif self._budget.ask(ref, urgent, now):
            start(self._write(wish))
            return
        self._queue.release(ref)

    def pass_over(self, ref: ObjectRef) -> None:
        """Nothing is to be written of a model for now."""
        self._budget.leave(ref)
        self._queue.release(ref)

    def turns(self, now: datetime) -> list[ObjectRef]:
        """Say whose turn it is to write; they are looked at again."""
        return self._budget.turns(now)

    def next_turn(self, now: datetime) -> datetime | None:
        """Say when somebody's turn comes by time alone."""
        return self._budget.next_turn(now)

    def forget(self, ref: ObjectRef) -> None:
        """Forget a model that is gone."""
        self._budget.forget(ref)
        self._expected.pop(ref, None)
        self._failed.pop(ref, None)

    def _not_before(self, wish: Wish, urgent: Urgency, now: datetime) -> datetime:
        at = self._budget.not_before(wish.ref, urgent, now)
        rests = self._queue.rests_until(wish.ref, now)
        # Traffic does not wait for the rest of a write that would have sent it elsewhere.
        another_route = urgent is Urgency.ROUTE and self._failed.get(wish.ref) != wish.status.route
        return max(at, rests) if rests and not another_route else at

    async def _write(self, wish: Wish) -> None:
        stored = wish.seen.stored
        try:
            await self._store.patch_status(stored.ref, wish.status.as_object(), stored.resource_version)
        except (ConflictError, NotFoundError):
            # The newer object is on its way here, and brings this model back; if not, it is looked at all the same.
            self._queue.add_at(stored.ref, self._around.clock() + self._comes_back_within)
            self._queue.release(stored.ref)
        except Exception as error:
            # Whatever is wrong with one object, or one write, the others go on.
            self._not_written(wish, error)
        else:
            self._written(wish)
        finally:
            self._budget.ended(stored.ref)

    def _written(self, wish: Wish) -> None:
        now, stored = self._around.clock(), wish.seen.stored
        if self._away:
            self._away = False
            logger.info("statuses are written again")
        self._failed.pop(wish.ref, None)
        self._expected[wish.ref] = (stored.resource_version, now + self._comes_back_within)
        self._queue.add_at(wish.ref, now + self._comes_back_within)
        self._queue.succeeded(wish.ref)
        log_transitions(stored, wish.seen.status, wish.status)
        for event in transitions(stored, wish.seen.status, wish.status, now):
            self._around.events.record(event)

    def _not_written(self, wish: Wish, error: Exception) -> None:
        away = isinstance(error, UnavailableError)
        self._failed[wish.ref] = wish.status.route
        longest = self._longest_rest_while_away if away else None
        at = self._queue.failed(wish.ref, self._around.clock(), longest)
        if not (away and self._away):
            # While nothing answers one line says it for all.
            trace = None if isinstance(error, StoreError) else error
            again = {"object": str(wish.ref), "because": str(error), "again": f"{at:%H:%M:%S}"}
            logger.warning("status not written", extra=again, exc_info=trace)
        self._away = self._away or away
