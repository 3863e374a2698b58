"""How well the laws of the decision follow the demand: a queueing model of the replicas, without Envoy and sockets.

Each input is played under every policy: the product's `decide` with a metric as it is measured (load reports every
half second, CPU over 15 s), metric loops that know the capacity, and an oracle. docs/decision.md says what the figures
are, and how far the model is from a real Envoy.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Mapping

import click

from benchmarks.control import streams as other_streams
from benchmarks.control.demand import Load, loads
from benchmarks.control.outcome import Asked, Outcome, play
from benchmarks.control.policies import AFTER_A_STEP, LOOP_OF_CPU, POLICIES, TOLD, Policy
from benchmarks.control.real import compared
from benchmarks.control.streams import TURN_EVERY, Settled, Turned, samples_of
from benchmarks.proxies.signals import judged, until_signalled

Figures = Mapping[str, Mapping[str, Outcome]]
"""By input, by policy."""

_HEADER = f"{'policy':<36}{'waited':>9}{'away':>9}{'beyond':>9}{'overload':>10}{'changes':>9}{'turns':>7}{'writes':>8}"
LEGEND = """\
waited: the share of all requests that found every place of their replica taken. away: sent to the remote backend;
beyond: more than the oracle sends. overload: seconds in which requests waited, looked at every half second. changes:
requests began to leave, or all came back. turns: the share went back by ten percent or more after it had gone the
other way. writes: what the product decided or remembers changed, which is a status that is written. The demand itself
asks for turns: whoever knows it at each moment (of a trace, over the last ten seconds) and keeps the replicas
at what they bear turns so often. A surge begins when as many requests would be served at once, if none had to wait, as
the target of the metric is, and is over when there were fewer by a tenth for a minute; step and hour are one each."""

_SWING_EVERY = 600.0
"""At a constant demand a share that was too little is tried again after so many seconds, ten times `restoreAfter`: that
is one swing, and two turns."""
_STREAMS, _FEWER = 30, 10
"""How many other streams there are of the step, and of each of `_VARIED`: a figure may be the chance in one."""
_VARIED = ("ramp", "square", "noise")

EPILOG = """\b
Exit codes:
  0    every goal is met, or --streams
  1    a goal is missed
  2    could not run
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  make bench NAME=decision
  python -m benchmarks.decision step square    some of the inputs
  python -m benchmarks.decision --streams 200  how much of a figure of the step is chance
  python -m benchmarks.decision --real         how far the model is from real replicas
"""


def run(names: tuple[str, ...]) -> int:
    """Play, print, and return the exit code."""
    known = loads()
    figures: dict[str, dict[str, Outcome]] = {}
    for name in names or tuple(known):
        figures[name] = {policy.name: play(known[name], policy) for policy in POLICIES}
        click.echo("\n".join(_table(known[name], figures[name])))
    click.echo(f"{LEGEND}\n")
    return judged((met, text) for text, met in _verdicts(figures))


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
    limited = [one.name for one in POLICIES if one.limited]
    waited, where = max((one[name].waited, f"{load}, {name}") for load, one in figures.items() for name in limited)
    yield f"with overflow, waited: <= 2 %: {waited:.2%} at most ({where})", waited <= 0.02
    yield from beyond_the_oracle(figures)
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
    known = loads()
    for policy in POLICIES:
        by_load = {load: (known[load], one[policy.name]) for load, one in figures.items()}
        if policy.proportional:
            yield from _comes_to_rest(policy, by_load)
        elif policy.product and not policy.overflow:
            yield _starts(policy, by_load)


def beyond_the_oracle(figures: Figures) -> Iterator[tuple[str, bool]]:
    """Judge by each policy with a limit how much leaves for which there was a place."""
    for policy in POLICIES:
        if policy.limited:
            beyond, where = max((one[policy.name].away - one["oracle"].away, load) for load, one in figures.items())
            yield f"{policy.name}, beyond: <= 5 %: {beyond:.2%} at most ({where})", beyond <= 0.05


def _comes_to_rest(policy: Policy, by_load: Mapping[str, tuple[Load, Outcome]]) -> Iterator[tuple[str, bool]]:
    if "step" in by_load:
        yield _settles(policy, *by_load["step"])
    for load, one in by_load.values():
        if load.steady:
            since, until = load.steady
            middle = (since + until) / 2
            turns, allowed = one.turns(middle, until), int(2 * (until - middle) / _SWING_EVERY)
            words = f"at a constant demand, turns in its second half ({until - middle:.0f} s): <= {allowed}"
            yield f"{policy.name}, {load.name}: {words}: {turns}", turns <= allowed
    turned = [Turned.by(load, one) for load, one in by_load.values()]
    varied = [load for name, (load, _) in by_load.items() if name in _VARIED]
    turned += [one for load in varied for one in Turned.others(policy, load, _FEWER)]
    worst = max(turned, key=lambda one: one.own)
    words = f"no sustained oscillation: <= one turn in {TURN_EVERY:.0f} s more than the demand's"
    others = f", and on {_FEWER} other streams each of {', '.join(one.name for one in varied)}" if varied else ""
    yield f"{policy.name}, {words}{others}: {worst} at most", worst.own <= 1


def _settles(policy: Policy, load: Load, one: Outcome) -> tuple[str, bool]:
    """Compare with the goal of three samples, and with a law that is told more, over the same other streams."""
    assert policy.kind
    settled, control = samples_of(policy, load, one), AFTER_A_STEP[policy.kind]
    found, told = Settled.of(policy, load, _STREAMS), Settled.of(control, load, _STREAMS)
    words = f"{settled}; of {_STREAMS} other streams {found}; {control.name}: {told}"
    return f"{policy.name}, step: settled within 3 samples of its metric: {words}", settled <= 3


def _starts(policy: Policy, by_load: Mapping[str, tuple[Load, Outcome]]) -> tuple[str, bool]:
    """Compare how often requests begin to leave with how many surges there are: one change, and one back, for each."""
    found = {name: (one.begun, Asked.by(load, policy.target).surges) for name, (load, one) in by_load.items()}
    where = max(found, key=lambda name: found[name][0] - found[name][1])
    begun, surges = found[where]
    each = ", ".join(f"{name} {begun}/{surges}" for name, (begun, surges) in found.items())
    return f"{policy.name}, begins once for a surge at most, on every input: {each}", begun <= surges


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
@click.option(
    "--streams", type=click.IntRange(1, 10_000), help="Say how soon shares settle in so many other streams of the step."
)
@click.option("--real", is_flag=True, help="Play a surge against real replicas behind a real Envoy, beside the model.")
def main(inputs: tuple[str, ...], *, streams: int | None, real: bool) -> None:
    """Play INPUTS (all of them by default) under every policy, and say whether the goals are met.

    One process; one to ten minutes for all. With --streams a table alone, a second for each; with --real a table and
    whether the model is right, after seven minutes.
    """
    if real:
        sys.exit(asyncio.run(until_signalled(_real())))
    sys.exit(_others(streams) if streams else run(inputs))


def _others(streams: int) -> int:
    """Print how soon shares settle in other streams of the step."""
    policies = [one for one in POLICIES if one.proportional and not one.overflow]
    for line in other_streams.table(loads()["step"], [*policies, *AFTER_A_STEP.values()], streams):
        click.echo(line)
    click.echo(other_streams.LEGEND)
    return 0


async def _real() -> int:
    comparison = await compared()
    click.echo("\n".join(comparison.table()))
    return judged((met, text) for text, met in comparison.verdicts())


if __name__ == "__main__":
    main()
