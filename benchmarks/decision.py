"""How well the laws of the decision follow the demand: a queueing model of the replicas, without Envoy and sockets.

Each input is played under every policy: the product's `decide` with a metric as it is measured (load reports every
half second, CPU over 15 s), metric loops that know the capacity, and an oracle. docs/decision.md says what the figures
are, and how far the model is from a real Envoy.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping

import click

from benchmarks.control.bound import settled_within
from benchmarks.control.demand import Load, loads
from benchmarks.control.outcome import Outcome, play
from benchmarks.control.policies import BEARS, LOOP_OF_CPU, POLICIES, REPORT, TOLD

Figures = Mapping[str, Mapping[str, Outcome]]
"""By input, by policy."""

_HEADER = f"{'policy':<36}{'waited':>9}{'away':>9}{'beyond':>9}{'overload':>10}{'changes':>9}{'turns':>7}{'writes':>8}"
LEGEND = """\
waited: the share of all requests that found every place of their replica taken. away: sent to the remote backend;
beyond: more than the oracle sends. overload: seconds in which requests waited, looked at every half second. changes:
requests began to leave, or all came back. turns: the share went back by ten percent or more after it had gone the
other way. writes: what the product decided or remembers changed, which is a status that is written."""

EPILOG = """\b
Exit codes:
  0  every goal is met
  1  a goal is missed

\b
Examples:
  make bench NAME=decision
  python -m benchmarks.decision step square    some of the inputs
"""


def run(names: tuple[str, ...]) -> int:
    """Play, print, and return the exit code."""
    known = loads()
    figures: dict[str, dict[str, Outcome]] = {}
    for name in names or tuple(known):
        figures[name] = {policy.name: play(known[name], policy) for policy in POLICIES}
        click.echo("\n".join(_table(known[name], figures[name])))
    click.echo(f"{LEGEND}\n")
    verdicts = tuple(_verdicts(figures))
    for text, met in verdicts:
        click.echo(f"{'met' if met else 'missed':<7}{text}")
    return 0 if all(met for _, met in verdicts) else 1


def _table(load: Load, by_policy: Mapping[str, Outcome]) -> Iterator[str]:
    yield f"{load.name}: {len(load.requests)} requests in {load.seconds:.0f} s, {load.pool.size} places"
    yield _HEADER
    oracle = by_policy["oracle"].away
    for name, one in by_policy.items():
        turns = one.turns(0, load.seconds)
        yield (
            f"{name:<36}{one.waited:>9.2%}{one.away:>9.2%}{one.away - oracle:>+9.2%}{one.overload:>10.1f}"
            f"{one.changes:>9}{turns:>7}{one.writes:>8}"
        )
    yield ""


def _verdicts(figures: Figures) -> Iterator[tuple[str, bool]]:
    limited = [one.name for one in POLICIES if one.overflow and one.product]
    waited, where = max((one[name].waited, f"{load}, {name}") for load, one in figures.items() for name in limited)
    yield f"with overflow, waited: <= 2 %: {waited:.2%} at most ({where})", waited <= 0.02
    beyond, where = max(
        (one[name].away - one["oracle"].away, f"{load}, {name}") for load, one in figures.items() for name in limited
    )
    yield f"with overflow, beyond: <= 5 %: {beyond:.2%} at most ({where})", beyond <= 0.05
    for policy in POLICIES:
        if policy.proportional:
            part, where = max(
                (one[policy.name].overload / one["loop, 5 s"].overload, load) for load, one in figures.items()
            )
            yield (
                f"{policy.name}, overload: <= half of the loop of 5 s: {part:.2f} of it at most ({where})",
                part <= 0.5,
            )
            if policy.kind == "cpu":
                yield _as_told(figures, policy.name)
                yield _of_loop_of_cpu(figures, policy.name)
    step, known = figures.get("step"), loads()["step"]
    if step and known.steady:
        (since, until), capacity = known.steady, known.pool.capacity
        for policy in POLICIES:
            one = step[policy.name]
            if policy.proportional:
                looks, turns = one.settled(since, until), one.turns((since + until) / 2, until)
                settled = 1 + math.ceil((looks - 1) * REPORT / policy.every)
                told = settled_within(3, known.times * capacity, BEARS * capacity, policy.every, 10)
                words = f"(who is told each request and the moment of the step is so in {told:.0%} of all streams)"
                yield f"{policy.name}, step: settled within 3 samples of its metric: {settled} {words}", settled <= 3
                yield f"{policy.name}, step: no turn in its second half: {turns}", turns == 0
            elif policy.product and not policy.overflow:
                yield f"{policy.name}, step: one change at most for a surge: {one.changes}", one.changes <= 2


def _as_told(figures: Figures, name: str) -> tuple[str, bool]:
    """Compare with a law that is exact about what so late a metric tells, if that is more than half of the loop's."""
    parts = {load: one[TOLD].overload / one["loop, 5 s"].overload for load, one in figures.items()}
    allowed = {load: max(part, 0.5) * figures[load]["loop, 5 s"].overload for load, part in parts.items()}
    worst, where = max((figures[load][name].overload / most, load) for load, most in allowed.items())
    told = f"a law that is told the demand as late has {min(parts.values()):.2f} to {max(parts.values()):.2f} of it"
    return f"{name}, overload: {told}; <= that, or half: {worst:.2f} times as much at most ({where})", worst <= 1.0


def _of_loop_of_cpu(figures: Figures, name: str) -> tuple[str, bool]:
    """Compare with the loop of 5 s that has the same metric, as late, in place of the number of requests."""
    parts = {load: one[name].overload / one[LOOP_OF_CPU].overload for load, one in figures.items()}
    where = max(parts, key=lambda load: parts[load])
    words = f"<= half of the loop of 5 s with the same metric: {min(parts.values()):.2f} to {parts[where]:.2f} of it"
    return f"{name}, overload: {words} (at most in {where})", parts[where] <= 0.5


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.argument("inputs", nargs=-1, type=click.Choice(list(loads())))
def main(inputs: tuple[str, ...]) -> None:
    """Play INPUTS (all of them by default) under every policy, and say whether the goals are met.

    One process; two to ten minutes for all.
    """
    sys.exit(run(inputs))


if __name__ == "__main__":
    main()
