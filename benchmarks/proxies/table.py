"""The words of the result: one table, one line for each goal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.proxies.comparison import (
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
    f"{'Envoy':<9}{'split':>7}{'requests':>10}{'remote':>8}{'CPU us/request':>16}"
    f"{'of static':>11} {'(quartiles)':<14}{'of by hand':>11} {'(quartiles)':<14}{'requests/s':>12}{'failed':>8}"
)
LEGEND = """\
of static, of by hand: CPU per request of that Envoy divided by this one's, at the same split; 0.9 is a ninth more CPU.
Medians of the rounds. requests/s: divided by the static Envoy's."""
_NOTHING = f"{'-':>11} {'':<14}"


def table(rounds: Sequence[Round]) -> str:
    """Write a row for each variant; LEGEND says how to read it."""
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


def _row(rounds: Sequence[Round], variant: Variant) -> str:
    slots = [one[variant] for one in rounds]
    requests = sum(slot.requests for slot in slots)
    remote = sum(slot.remote for slot in slots) / requests
    static, by_hand = (Variant(kind, variant.local) for kind in (Kind.STATIC, Kind.BY_HAND))
    of_static = _shown(efficiency(rounds, variant, static)) if variant.kind is not Kind.STATIC else _NOTHING
    of_by_hand = _shown(efficiency(rounds, variant, by_hand)) if variant.kind is Kind.PRODUCT else _NOTHING
    return (
        f"{variant.kind.value:<9}{variant.split:>7}{requests:>10}{remote:>8.1%}"
        f"{cpu_per_request(rounds, variant) * 1e6:>16.1f}{of_static}{of_by_hand}"
        f"{throughput(rounds, variant, static).median:>12.3f}{sum(slot.failed for slot in slots):>8}"
    )


def _shown(ratios: Ratios) -> str:
    low, high = ratios.quartiles
    return f"{ratios.median:>11.3f} {f'({low:.3f}-{high:.3f})':<14}"
