"""Other streams of an input, with the same demand and other arrivals: how much of a figure is chance. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from benchmarks.control.demand import Load, another
from benchmarks.control.outcome import Asked, Outcome, play
from benchmarks.control.policies import REPORT, Policy

TURN_EVERY = 60.0
"""A share that turns more often than the demand, by more than one turn in so many seconds (the product's `restoreAfter`
is the same), oscillates by itself, and does not come to rest: a swing is two turns."""

_WITHIN = (3, 6, 10, 20, 50)
_HEADER = (
    f"{'settled within so many samples':<40}{''.join(f'{most:>6}' for most in _WITHIN)}"
    f"{'last':>6}{'rests':>7}{'overload':>10}"
)
LEGEND = """\
In how many of these streams of the step the share is settled within so many samples of the metric of that line, and
with which in the last. rests: in how many it does not turn in the second half of the step. overload: seconds in each,
on average. Told the requests since: a law that knows what the replicas bear, and each request since that metric passed
its target. Told the demand, as late as CPU: it knows how many requests came in each window of CPU."""


@dataclass(frozen=True, slots=True)
class Settled:
    """After how many samples of the metric a share is settled, in each stream of a step, in ascending order.

    `rests` is in how many streams it does not turn in the second half of the step, `overload` how many seconds of
    overload there are in each, on average.
    """

    samples: tuple[int, ...]
    rests: int
    overload: float

    @classmethod
    def of(cls, policy: Policy, load: Load, streams: int) -> Settled:
        """Play so many other streams of a step, until it is down again."""
        assert load.steady
        since, until = load.steady
        found, rests, overload = [], 0, 0.0
        for number in range(streams):
            other = another(load, number, until)
            one = play(other, policy)
            found.append(samples_of(policy, other, one))
            rests += not one.turns((since + until) / 2, until)
            overload += one.overload / streams
        return cls(tuple(sorted(found)), rests, overload)

    def within(self, most: int) -> int:
        """Count the streams that are settled within so many samples."""
        return sum(samples <= most for samples in self.samples)

    def __str__(self) -> str:
        half = self.samples[len(self.samples) // 2]
        last = self.samples[-1]
        return (
            f"{self.within(3)}, half within {half} and the last with {last}, and overloaded for {self.overload:.0f} s"
        )


def samples_of(policy: Policy, load: Load, one: Outcome) -> int:
    """Count the samples of the metric until a share is settled after a step."""
    assert load.steady
    return 1 + math.ceil((one.settled(*load.steady) - 1) * REPORT / policy.every)


def table(load: Load, policies: Iterable[Policy], streams: int) -> Iterator[str]:
    """Say how soon shares are settled in so many other streams of a step, a line for each policy."""
    yield f"{streams} other streams of the {load.name}, until it is down again"
    yield _HEADER
    for policy in policies:
        found = Settled.of(policy, load, streams)
        cells = "".join(f"{found.within(most):>6}" for most in _WITHIN)
        yield f"{policy.name:<40}{cells}{found.samples[-1]:>6}{found.rests:>7}{found.overload:>10.1f}"


@dataclass(frozen=True, slots=True)
class Turned:
    """How often a share turned under an input, and how often the demand asks for it."""

    name: str
    turns: int
    asked: int
    seconds: float

    @classmethod
    def by(cls, load: Load, one: Outcome) -> Turned:
        """Look at what came of an input."""
        return cls(load.name, one.turns(0, load.seconds), Asked.by(load).turns, load.seconds)

    @classmethod
    def others(cls, policy: Policy, load: Load, streams: int) -> Iterator[Turned]:
        """Play so many other streams of an input."""
        for number in range(streams):
            other = another(load, number)
            yield cls.by(other, play(other, policy))

    @property
    def own(self) -> float:
        """How often it turned more than it was asked for, in `TURN_EVERY`."""
        return (self.turns - self.asked) * TURN_EVERY / self.seconds

    def __str__(self) -> str:
        return f"{self.turns}, and the demand {self.asked}, in {self.seconds:.0f} s ({self.name})"
