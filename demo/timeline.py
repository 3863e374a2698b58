"""What arrives when in the demo, and when what happens. Pure; seconds from the start of the load."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from demo.completion import generation_time
from tests.support.load import Step, TracedRequest, steps_of, window


@dataclass(frozen=True, slots=True)
class Stretch:
    """A part of the trace, from `start` (seconds into it) on, replayed `speed` times as fast for `seconds`."""

    start: float
    speed: float
    seconds: float


CALM = Stretch(2370, 1.5, 10)
BUSIEST_MINUTE = Stretch(570, 3, 18)
"""Its last six seconds, when less and less comes, are left out: the servers are killed under load."""
DEAD = Stretch(605, 2, 11)
RETURN = Stretch(605, 1.5, 10)
FULL = Stretch(570, 1.3, 10)
"""A little more than the local replicas take."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The requests in the order of their arrival, and when what is to happen."""

    requests: tuple[TracedRequest, ...]
    burst: float
    """When more arrives than the local replicas take."""
    kill: float
    """From when on every local server is killed, as soon as they are busy."""
    revive: float
    """When they are started again."""
    full: float
    """From when on the remote backend is killed, as soon as the local replicas are full and it serves the excess."""
    end: float


def plan(trace: Sequence[TracedRequest], scale: float = 1.0) -> Plan:
    """Return the plan of the demo; with a `scale` below 1 each stretch is shorter by that, and as busy as ever."""
    stretches = [replace(one, seconds=one.seconds * scale) for one in (CALM, BUSIEST_MINUTE, DEAD, RETURN, FULL)]
    begins = list(accumulate((one.seconds for one in stretches), initial=0.0))
    requests = tuple(
        replace(request, at=request.at + begin)
        for one, begin in zip(stretches, begins, strict=False)
        for request in window(trace, one.start, one.seconds * one.speed, one.speed)
    )
    return Plan(requests, *begins[1:])


def arrivals(plan: Plan, may_go_on: Callable[[], bool]) -> Iterator[TracedRequest]:
    """Return the requests of a plan, one after the other; those of the return again and again until `may_go_on`.

    Whatever follows is later by that. It is asked when the next request is due: a machine may take long to start what
    was killed.
    """
    late = 0.0
    returning = [one for one in plan.requests if plan.revive <= one.at < plan.full]
    for one in plan.requests:
        while one.at >= plan.full and not may_go_on():
            begin = late
            for again in returning:
                if may_go_on():
                    break
                late = begin + again.at - plan.revive
                yield replace(again, at=plan.full + late)
            else:
                late = begin + plan.full - plan.revive
        yield replace(one, at=one.at + late)


def demand_of(requests: Sequence[TracedRequest]) -> tuple[Step, ...]:
    """Return how many requests would be in flight if each were taken up as it arrives."""
    return steps_of((one.at, one.at + generation_time(one.generated_tokens)) for one in requests)
