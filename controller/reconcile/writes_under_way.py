"""The writes that have no answer yet, and those that never got one though they may have been done.

An event is told when its status was written, so an answer that is lost would lose the event: with the status as it
shall be, nobody finds anything new to tell. So the answers are waited for by a controller that ends, for a moment; and
a write without an answer, or with one that says no, is remembered until the object is seen at another version: if that
has just the status that was sent, it was done. (Of a request that is sent again because its answer was lost, the second
one is refused for the first one's doing.)
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from controller.api.contract.status import ModelDeploymentStatus
from controller.observe.index import previous_status
from controller.plan.plan import Plan
from controller.reconcile.writer import WriteResult
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import ObjectReader, StoreError


@dataclass(slots=True)
class WritesUnderWay:
    """Writes plans, each in a task of its own. `on_answer` is called when there is a result to be taken."""

    write: Callable[[Plan], Awaitable[WriteResult]]
    on_answer: Callable[[], None]
    _tasks: dict[asyncio.Task[None], Plan] = field(default_factory=dict)
    _results: list[WriteResult] = field(default_factory=list)
    # The first and the last such write of each object since it was last seen at another version: one that was done has
    # those after it refused. So one in between is only missed if it was done, and what followed was refused as well.
    _uncertain: dict[ObjectRef, tuple[Plan, Plan]] = field(default_factory=dict)

    def begin(self, plan: Plan) -> None:
        """Write a plan in the background."""
        task = asyncio.create_task(self._write(plan))
        self._tasks[task] = plan
        task.add_done_callback(lambda done: self._tasks.pop(done, None))

    def take_results(self) -> list[WriteResult]:
        """Return what became of the writes that were answered since the last time."""
        results, self._results = self._results, []
        for result in results:
            if result.error is None:
                self.forget(result.plan.ref)
            else:
                self._doubt(result.plan)
        return results

    def was_done(self, stored: StoredObject, status: ModelDeploymentStatus) -> Plan | None:
        """Return the plan that an object was written by, if that is known only now that the object is seen.

        `status` is the one that the object has.
        """
        plans = self._uncertain.get(stored.ref)
        if plans is None or stored.resource_version == plans[0].stored.resource_version:
            return None
        self.forget(stored.ref)
        return next((one for one in plans if one.status.as_object() == status.as_object()), None)

    def forget(self, ref: ObjectRef) -> None:
        """Forget an object that is gone, or of which is known what became of its write."""
        self._uncertain.pop(ref, None)

    async def end(self, within: float) -> None:
        """Wait for the answers so many seconds, and break off the writes that have none by then."""
        try:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=within)
        finally:
            broken_off = dict(self._tasks)
            for task, plan in broken_off.items():
                task.cancel()
                self._doubt(plan)
            await asyncio.gather(*broken_off, return_exceptions=True)

    async def find_done(self, reader: ObjectReader, within: float) -> list[Plan]:
        """Read the objects of which is not known what became of their writes; return the plans that were done.

        What cannot be read within so many seconds stays unknown.
        """
        done = []
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                for ref in tuple(self._uncertain):
                    with contextlib.suppress(StoreError):
                        stored = await reader.read(ref)
                        if plan := self.was_done(stored, previous_status(stored)):
                            done.append(plan)
        return done

    def _doubt(self, plan: Plan) -> None:
        first, _ = self._uncertain.get(plan.ref, (plan, plan))
        self._uncertain[plan.ref] = (first, plan)

    async def _write(self, plan: Plan) -> None:
        result = await self.write(plan)
        self._results.append(result)
        self.on_answer()
