"""The words of the result: one table, one line for each goal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.proxies.comparison import (
    GOALS,
    VARIANTS,
    Goal,
    Kind,
    Ratios,
    Round,
    Variant,
    cpu_per_request,
    efficiency,
    failed,
    throughput,
)

_HEADER = (
    f"{'Envoy':<9}{'split':>7}{'requests':>10}{'remote':>9}{'CPU us/request':>16}"
    f"{'of static':>11} {'(quartiles)':<13}{'of by hand':>12} {'(quartiles)':<13}{'requests/s':>12}{'failed':>8}"
)


def table(rounds: Sequence[Round]) -> str:
    """Write a row for each variant.

    Ratios are the CPU per request of the other by that of this one: 0.9 is a ninth more CPU. The last ratio is that of
    requests per second to the static Envoy's.
    """
    return "\n".join([_HEADER, *(_row(rounds, variant) for variant in VARIANTS)])


def verdict(goal: Goal, rounds: Sequence[Round]) -> str:
    """Write whether a goal is met, and by which figure."""
    ratios = goal.ratios(rounds)
    low, high = ratios.interval
    word = "met" if goal.met(rounds) else "missed"
    figure = f"{ratios.median:.3f} (95 %: {low:.3f} to {high:.3f})"
    return f"{word:<7}{goal.text:<48}>= {goal.at_least:.2f}: {figure}"


def verdict_on_failures(rounds: Sequence[Round]) -> str:
    """Write whether every request was answered well."""
    count, requests = failed(rounds), sum(slot.requests for one in rounds for slot in one.values())
    return f"{'missed' if count else 'met':<7}{'failed requests':<48}   {'0':>4}: {count} of {requests}"


def unsettled(rounds: Sequence[Round]) -> tuple[str, ...]:
    """Name the goals that more rounds could still decide."""
    return tuple(goal.text for goal in GOALS if not goal.settled(rounds))


def _row(rounds: Sequence[Round], variant: Variant) -> str:
    slots = [one[variant] for one in rounds]
    requests = sum(slot.requests for slot in slots)
    remote = sum(slot.remote for slot in slots) / requests
    static, by_hand = Variant(Kind.STATIC, variant.local), Variant(Kind.BY_HAND, variant.local)
    compared = [efficiency(rounds, variant, base) if variant.kind in kinds else None for base, kinds in (
        (static, (Kind.BY_HAND, Kind.PRODUCT)), (by_hand, (Kind.PRODUCT,)),
    )]
    return (
        f"{variant.kind.value:<9}{variant.split:>7}{requests:>10}{remote:>8.1%} "
        f"{cpu_per_request(rounds, variant) * 1e6:>16.1f}{_shown(compared[0])}{_shown(compared[1])}"
        f"{throughput(rounds, variant, static).median:>11.3f}{sum(slot.failed for slot in slots):>8}"
    )


def _shown(ratios: Ratios | None) -> str:
    if ratios is None:
        return f"{'-':>11}{'':<14}"
    low, high = ratios.quartiles
    return f"{ratios.median:>11.3f} ({low:.3f}-{high:.3f})"
