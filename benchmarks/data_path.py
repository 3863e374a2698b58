"""What a request pays in the product's data plane, against a static Envoy and against one written by hand.

Nine Envoys with one worker each (three kinds, three splits) take turns of a fraction of a second with 32 clients on
kept connections. What counts is the CPU that an Envoy used per request, compared within each round; the upstream is an
Envoy that answers at once. Before that, the product's Envoy and the one by hand show that they treat requests alike.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.proxies.comparison import GOALS, VARIANTS, Goal, Round, Variant, failed, turns
from benchmarks.proxies.envoys import Cpus, Envoys, on_cpus
from benchmarks.proxies.lineup import Proxy, lineup
from benchmarks.proxies.protection import Protection
from benchmarks.proxies.signals import until_signalled
from benchmarks.proxies.table import LEGEND, table, verdict, verdict_on_failures

_WARM_UP = 6
"""Rounds before those that count."""
_AT_MOST = 3
"""How many times the rounds asked for there are while a goal is unsettled."""
_TOLD_EACH = 20
"""Rounds."""

EPILOG = """\b
Exit codes:
  0    every goal is met
  1    a goal is missed
  2    could not run
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  make bench NAME=data_path
  python -m benchmarks.data_path --rounds 60               quicker, less certain
  python -m benchmarks.data_path --seconds-per-slot 0.1    longer turns
"""


@dataclass(frozen=True, slots=True)
class Options:
    """How long it runs."""

    rounds: int
    seconds_per_slot: float


async def run(options: Options) -> int:
    """Measure, print, and return the exit code. Raises CannotRunError and OSError."""
    cpus = Cpus.of_this_process()
    click.echo(f"starting {len(VARIANTS)} Envoys and their upstream")
    with tempfile.TemporaryDirectory(prefix="data-path-") as folder, on_cpus(cpus.rest), Envoys(Path(folder)) as envoys:
        async with lineup(envoys, cpus, Protection.made_in(Path(folder))) as proxies:
            click.echo("the product and the Envoy by hand treat requests alike")
            try:
                warm_up, rounds = await _measured(proxies, options)
            except OSError:
                envoys.check()  # says which one is gone, and its last words
                raise
    click.echo(f"\n{table(rounds)}\n\n{LEGEND}\n")
    for goal in GOALS:
        click.echo(verdict(goal, rounds))
    click.echo(verdict_on_failures([*warm_up, *rounds]))
    return 0 if all(goal.met(rounds) for goal in GOALS) and not failed([*warm_up, *rounds]) else 1


async def _measured(proxies: Mapping[Variant, Proxy], options: Options) -> tuple[Sequence[Round], Sequence[Round]]:
    """Return the rounds to warm up, and those that count: more than asked for while a goal is not settled."""
    warm_up = [await _round(proxies, number, options.seconds_per_slot) for number in range(_WARM_UP)]
    rounds: list[Round] = []
    while len(rounds) < options.rounds or (_unsettled(rounds) and len(rounds) < _AT_MOST * options.rounds):
        rounds.append(await _round(proxies, len(rounds), options.seconds_per_slot))
        if len(rounds) % _TOLD_EACH == 0:
            click.echo(f"{len(rounds):>5} rounds, {len(GOALS) - len(_unsettled(rounds))} of {len(GOALS)} goals settled")
    return warm_up, rounds


async def _round(proxies: Mapping[Variant, Proxy], number: int, seconds: float) -> Round:
    slots = {}
    for variant in turns(number):
        slots[variant] = proxies[variant].slot(seconds)
        # The load blocks on purpose; between two slots the control planes have their turn.
        await asyncio.sleep(0)
    return slots


def _unsettled(rounds: Sequence[Round]) -> tuple[Goal, ...]:
    return tuple(goal for goal in GOALS if not goal.settled(rounds))


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--rounds",
    type=click.IntRange(10, 5000),
    default=120,
    show_default=True,
    help=f"One slot of each Envoy is a round. Up to {_AT_MOST} times as many while noise leaves a goal open.",
)
@click.option(
    "--seconds-per-slot",
    type=click.FloatRange(0.01, 10),
    default=0.05,
    show_default=True,
    help="How long the turn of an Envoy lasts.",
)
def main(rounds: int, seconds_per_slot: float) -> None:
    """Measure what a request pays in the product's data plane.

    Compares, as CPU per request of the Envoy and in turns of a fraction of a second: the product; a static Envoy that
    does nothing but split; and an Envoy whose file was written by hand for the product's duties. Prints a table, then
    for each goal whether it is met.
    """
    sys.exit(asyncio.run(until_signalled(run(Options(rounds, seconds_per_slot)))))


if __name__ == "__main__":
    main()
