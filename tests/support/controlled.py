"""A controller at work over a store in memory, and what its statuses say."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from controller.frontend.ports import AllocatedPorts
from controller.plan.plan import Plan
from controller.reconcile.controller import Controller
from controller.reconcile.dependencies import Dependencies
from controller.store.events import Event
from controller.store.objects import ObjectRef
from tests.support.clock import Clock
from tests.support.objects import a_model, a_service
from tests.support.proxies import AllProgrammed
from tests.support.store import settled

SERVICES = tuple(a_service(name).port(80) for name in "ab")
# The namespaces of a cluster: every Service has a port 80 of its own, and the gateway its own ports.
IN_A_CLUSTER = AllocatedPorts(10000, 10009)


@dataclass
class Running:
    """A controller at work, and what it told."""

    controller: Controller
    clock: Clock
    order: list[str] = field(default_factory=list)
    decisions: list = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    # As its telemetry.

    def planned(self, plan: Plan) -> None:
        self.order.append(plan.ref.name)
        if plan.decision:
            self.decisions.append((plan.ref, plan.decision))

    def forgotten(self, ref: ObjectRef) -> None:
        self.decisions.append((ref, None))

    def written(self, plan: Plan, seconds: float) -> None:
        self.seconds.append(seconds)

    def failed(self, step: str) -> None:
        self.failures.append(step)

    def record(self, event: Event) -> None:
        self.events.append(event)

    async def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.controller.look_again(frozenset())
        await settled()


@asynccontextmanager
async def controlled(store, clock=None, **around) -> AsyncIterator[Running]:
    running = Running(None, clock or Clock())
    dependencies = Dependencies(
        proxies=around.pop("proxies", AllProgrammed()),
        clock=running.clock,
        telemetry=running,
        events=running,
    )
    running.controller = Controller(store, replace(dependencies, **around))
    task = asyncio.create_task(running.controller.run())
    try:
        await settled()
        yield running
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def stored(*objects):
    return [one.stored() for one in objects]


def accepted(store, name):
    conditions = store[a_model(name).ref].status["conditions"]
    return next(one["reason"] for one in conditions if one["type"] == "Accepted")


def split(store, name="a"):
    status = store[a_model(name).ref].status
    return f"{status['split']['local']}/{status['split']['remote']} {status['split']['reason']}"


def condition(store, type_, name="a"):
    conditions = store[a_model(name).ref].status["conditions"]
    return next((one["status"], one["reason"], one["message"]) for one in conditions if one["type"] == type_)
