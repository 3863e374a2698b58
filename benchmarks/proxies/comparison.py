"""Who is compared with whom, and what many rounds say about it. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import NamedTuple, TypeAlias

from benchmarks.proxies.slots import Slot


class Kind(Enum):
    """The Envoys that are compared."""

    STATIC = "static"
    BY_HAND = "by hand"
    PRODUCT = "product"


class Variant(NamedTuple):
    """One Envoy with one split: `local` percent to the replicas."""

    kind: Kind
    local: int

    @property
    def split(self) -> str:
        """The shares as they are written everywhere: local/remote."""
        return f"{self.local}/{100 - self.local}"

    def __str__(self) -> str:
        return f"{self.kind.value} {self.split}"


SPLITS = (100, 50, 0)
VARIANTS = tuple(Variant(kind, local) for local in SPLITS for kind in Kind)

Round: TypeAlias = Mapping[Variant, Slot]
"""One slot of each variant, all within a second or two: noise that lasts longer is in all of them."""


class Ratios(NamedTuple):
    """What the ratios of many rounds say."""

    median: float
    quartiles: tuple[float, float]
    interval: tuple[float, float]
    """Where the true median lies, at 95 %."""

    @classmethod
    def of(cls, values: Sequence[float]) -> Ratios:
        """Summarise at least two values.

        The interval is one between order statistics (binomial, normal approximation): it assumes nothing of the noise.
        """
        ascending = sorted(values)
        low, median, high = statistics.quantiles(ascending, n=4, method="inclusive")
        reach = max(0, math.floor((len(ascending) - 1.96 * math.sqrt(len(ascending))) / 2))
        return cls(median, (low, high), (ascending[reach], ascending[-1 - reach]))


class Goal(NamedTuple):
    """What one Envoy may cost compared with another, as CPU per request of the other by that of the one."""

    text: str
    variant: Variant
    base: Variant
    at_least: float

    def ratios(self, rounds: Sequence[Round]) -> Ratios:
        """Compare the two."""
        return efficiency(rounds, self.variant, self.base)

    def met(self, rounds: Sequence[Round]) -> bool:
        """Judge by the median."""
        return self.ratios(rounds).median >= self.at_least

    def settled(self, rounds: Sequence[Round]) -> bool:
        """Say whether more rounds would hardly change the judgement: all of the interval is on one side."""
        low, high = self.ratios(rounds).interval
        return low >= self.at_least or high < self.at_least


GOALS = (
    Goal("local leg, of a static Envoy", Variant(Kind.PRODUCT, 100), Variant(Kind.STATIC, 100), 0.90),
    Goal("50/50, of a static Envoy", Variant(Kind.PRODUCT, 50), Variant(Kind.STATIC, 50), 0.75),
    Goal(
        "local leg, of one by hand with the same duties", Variant(Kind.PRODUCT, 100), Variant(Kind.BY_HAND, 100), 0.97
    ),
    Goal("50/50, of one by hand with the same duties", Variant(Kind.PRODUCT, 50), Variant(Kind.BY_HAND, 50), 0.97),
)


def turns(number: int) -> tuple[Variant, ...]:
    """Return the order of a round: each starts at another variant, and every second one goes backwards."""
    order = VARIANTS[::-1] if number % 2 else VARIANTS
    first = number % len(order)
    return order[first:] + order[:first]


def efficiency(rounds: Sequence[Round], variant: Variant, base: Variant) -> Ratios:
    """Compare CPU per request, round by round; 1 is as much as `base`, less is more CPU."""
    return _ratios(rounds, lambda one: one[base].cpu_per_request / one[variant].cpu_per_request)


def throughput(rounds: Sequence[Round], variant: Variant, base: Variant) -> Ratios:
    """Compare requests per second, round by round."""
    return _ratios(rounds, lambda one: one[variant].rate / one[base].rate)


def cpu_per_request(rounds: Sequence[Round], variant: Variant) -> float:
    """Return the median, in seconds."""
    return statistics.median(one[variant].cpu_per_request for one in rounds)


def failed(rounds: Sequence[Round]) -> int:
    """Count the failed requests of all variants."""
    return sum(slot.failed for one in rounds for slot in one.values())


def _ratios(rounds: Sequence[Round], ratio: Callable[[Round], float]) -> Ratios:
    return Ratios.of([ratio(one) for one in rounds])
