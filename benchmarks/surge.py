"""What a burst costs: both Azure traces against replicas of fixed capacity, under the product and under metric loops.

The replicas serve twice the mean rate of the trace. Each policy has an Envoy of its own, replicas of its own and the
same arrivals, all in one run, each a little after the other so that their bursts do not meet. Time is compressed: an
hour takes a few minutes, the time of service and the intervals of the metric loops are shorter alike. What the figures
mean, and what they are: docs/surge.md.
"""

from __future__ import annotations

import asyncio
import gc
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from functools import partial
from pathlib import Path

import click

from benchmarks.overflow.outcome import Outcome
from benchmarks.overflow.plan import plan_for
from benchmarks.overflow.policies import POLICIES, Policy
from benchmarks.overflow.replay import replayed
from benchmarks.overflow.stage import stage
from benchmarks.overflow.table import GOALS, LEGEND, table, verdict
from benchmarks.proxies.envoys import CannotRunError, Envoys
from benchmarks.proxies.signals import until_signalled
from tests.support.load import Sample, TracedRequest, azure_code_trace, azure_conversation_trace

_TRACES: Mapping[str, Callable[[], tuple[TracedRequest, ...]]] = {
    "code": azure_code_trace,
    "conversation": azure_conversation_trace,
}
_SECONDS = 200.0
"""How long the replay of an hour takes: long enough that a request keeps its place for longer than Envoy, the load
generator and two shared cores can add to it."""
_APART = 3.0
"""Seconds between the starts of two policies."""
_TOLD_EACH = 15.0

EPILOG = """\b
Exit codes:
  0    every goal is met
  1    a goal is missed
  2    could not run
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  make bench NAME=surge
  python -m benchmarks.surge --share 0.1       the first six minutes of each trace
"""


async def run(share: float) -> int:
    """Measure, print, and return the exit code. Raises CannotRunError and OSError."""
    outcomes = {}
    for name, load in _TRACES.items():
        outcomes[name] = await _measured(name, load(), share)
        click.echo(f"\n{table(outcomes[name])}\n")
    click.echo(f"{LEGEND}\n")
    for goal in GOALS:
        click.echo(verdict(goal, outcomes))
    return 0 if all(goal.met(outcomes) for goal in GOALS) else 1


async def _measured(name: str, trace: Sequence[TracedRequest], share: float) -> Mapping[Policy, Outcome]:
    plan = plan_for(trace, share, _SECONDS)
    pool, count = plan.pool, len(plan.arrivals)
    click.echo(
        f"{name}: {count} requests, {1 / plan.scale:.1f} times as fast as they were; {pool.replicas} replicas with "
        f"{pool.places} places, {pool.service:.2f} s for a request: {pool.capacity:.2f} requests/s"
    )
    done: Counter[Policy] = Counter()
    with tempfile.TemporaryDirectory(prefix="surge-") as folder, Envoys(Path(folder)) as envoys, _no_collections():
        async with AsyncExitStack() as stack:
            stages = [await stack.enter_async_context(stage(envoys, one, plan)) for one in POLICIES]
            telling = asyncio.create_task(_tell(done, count))
            stack.callback(telling.cancel)
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = []
                    for policy, on in zip(POLICIES, stages, strict=True):
                        tasks.append(group.create_task(replayed(on, policy, plan, partial(_count, done, policy))))
                        await asyncio.sleep(_APART)
            except ExceptionGroup as failed:
                envoys.check()  # says which one is gone, and its last words
                raise CannotRunError(repr(failed.exceptions[0])) from failed
            envoys.check()
    return {policy: Outcome(task.result(), pool, plan.scale) for policy, task in zip(POLICIES, tasks, strict=True)}


@contextmanager
def _no_collections() -> Iterator[None]:
    """Keep the garbage collector away: what it holds up for a tenth of a second is sent as a burst of no trace."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _count(done: Counter[Policy], policy: Policy, _: Sample) -> None:
    done[policy] += 1


async def _tell(done: Mapping[Policy, int], count: int) -> None:
    while True:
        await asyncio.sleep(_TOLD_EACH)
        click.echo("  answered: " + ", ".join(f"{policy.name} {done[policy] / count:.0%}" for policy in POLICIES))


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--share",
    type=click.FloatRange(0.01, 1),
    default=1.0,
    show_default=True,
    help="How much of each trace is replayed, from its start.",
)
def main(share: float) -> None:
    """Measure what bursts cost under the product, under metric loops of 15 s and 5 s, and under no controller.

    Replays two hours of production traces against replicas that serve twice the mean rate. Prints, for each policy,
    which share of the requests met a full replica and which was sent away beyond what had to be; then for each goal
    whether it is met. Takes about seven minutes.
    """
    sys.exit(asyncio.run(until_signalled(run(share))))


if __name__ == "__main__":
    main()
