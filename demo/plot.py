"""The picture of one run: demand, room, where the requests went, how long their first byte took, what was decided."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import numpy
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from demo.outcome import Outcome
from demo.timeline import Plan, demand_of
from tests.support.load import Sample, Step, percentile, steps_of

_BIN = 0.25
"""Seconds over which is averaged what is in flight."""
_WAIT_BIN = 0.5
_LOCAL, _REMOTE, _FAILED, _INK, _PALE = "#3b7dd8", "#f2a33a", "#c62828", "#333333", "#8a8a8a"


def draw(outcome: Outcome, planned: Plan, path: Path) -> None:
    """Write the plot, as PNG or what else the ending of the path says; the folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, (flight, wait, split) = pyplot.subplots(
        3, 1, sharex=True, figsize=(13, 8.2), height_ratios=(4.4, 2, 1), layout="constrained"
    )
    whole = outcome.tally
    figure.suptitle(
        f"{whole.requests} streamed completions, {whole.failed} failed"
        + (f"; {whole.cut} that had begun were cut off as their server was killed" if whole.cut else ""),
        x=0.01,
        ha="left",
        fontsize=14,
        fontweight="bold",
        color=_INK,
    )
    _flight(flight, outcome, planned)
    _waits(wait, outcome)
    _decisions(split, outcome)
    for axes in (flight, wait, split):
        _phases(axes, outcome)
        axes.spines[["top", "right"]].set_visible(False)
        axes.spines[["left", "bottom"]].set_color(_PALE)
        axes.tick_params(colors=_INK)
    for phase in outcome.phases:
        flight.annotate(
            phase.name,
            ((phase.start + phase.end) / 2, 1.0),
            xycoords=flight.get_xaxis_transform(),
            xytext=(0, 5),
            textcoords="offset points",
            ha="center",
            color=_INK,
            fontweight="bold",
        )
    split.set_xlim(0, outcome.end)
    split.set_xlabel("seconds from the start of the load")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def _phases(axes: Axes, outcome: Outcome) -> None:
    """Shade what lasts from a kill to the next event, and mark where each phase begins."""
    for phase in outcome.phases[1:]:
        axes.axvline(phase.start, color=_PALE, linewidth=0.8, zorder=0.5)
    _, _, dead, _, remote_gone = outcome.phases
    for phase, colour in ((dead, _LOCAL), (remote_gone, _REMOTE)):
        axes.axvspan(phase.start, phase.end, color=colour, alpha=0.07, linewidth=0, zorder=0)


def _flight(axes: Axes, outcome: Outcome, planned: Plan) -> None:
    edges = numpy.arange(0.0, outcome.end + _BIN, _BIN)
    local, remote = (_means(_in_flight(outcome, side), edges) for side in ("local", "remote"))
    axes.stairs(local, edges, fill=True, color=_LOCAL, label="local")
    axes.stairs(local + remote, edges, baseline=local, fill=True, color=_REMOTE, label="remote")
    demand = _means(demand_of(planned.requests), edges)
    axes.stairs(demand, edges, baseline=None, color=_INK, linewidth=1.3, label="demand: if each were served at once")
    phases = outcome.phases
    room = [phase.capacity for phase in phases]
    axes.stairs(
        room,
        [*(phase.start for phase in phases), outcome.end],
        baseline=None,
        color=_FAILED,
        linewidth=2,
        label="capacity of the replicas",
    )
    highest = max((local + remote).max(), demand.max()) * 1.3
    _marks(axes, outcome, highest)
    axes.set_ylim(0, highest)
    axes.set_ylabel("requests in flight")
    axes.legend(loc="upper left", frameon=True, framealpha=0.9, edgecolor="none", ncols=2)


def _in_flight(outcome: Outcome, side: str) -> tuple[Step, ...]:
    """Return what clients had in flight on one side; an answer that a kill cut off was of the side that was killed."""

    def side_of(sample: Sample) -> str:
        return next((kill.side for kill in outcome.kills if kill.cut(sample)), sample.route)

    return steps_of((one.start, one.end) for one in outcome.report.samples if side_of(one) == side)


def _marks(axes: Axes, outcome: Outcome, highest: float) -> None:
    """Mark what was killed, and the requests without a whole answer where they ended."""
    for kill, names in zip(outcome.kills, ("every replica", "the remote"), strict=True):
        axes.annotate(
            f"SIGKILL to {names}",
            (kill.at, highest * 0.97),
            xytext=(6, 0),
            textcoords="offset points",
            va="top",
            color=_FAILED,
            fontweight="bold",
        )
    broken = [one for one in outcome.report.samples if one.error]
    cut = [one for one in broken if any(kill.cut(one) for kill in outcome.kills)]
    failed = [one for one in broken if one not in cut]
    for some, marker, label, height in ((cut, "x", "cut off", 0.87), (failed, "v", "failed", 0.80)):
        axes.plot(
            [one.end for one in some],
            [height * highest] * len(some),
            marker,
            color=_FAILED,
            markersize=8,
            label=f"{label}: {len(some)}",
        )


def _waits(axes: Axes, outcome: Outcome) -> None:
    bins: dict[int, list[float]] = {}
    for one in outcome.report.samples:
        if not one.error:
            bins.setdefault(int(one.start / _WAIT_BIN), []).append(one.first_byte)
    numbers = range(max(bins, default=0) + 1)
    middles = [(number + 0.5) * _WAIT_BIN for number in numbers]
    for percent, colour in ((99, _INK), (50, _PALE)):
        values = [percentile(bins.get(number, ()), percent) for number in numbers]
        axes.plot(middles, values, ".-", color=colour, linewidth=1.1, markersize=4, label=f"p{percent}")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.grid(axis="y", color=_PALE, alpha=0.25, linewidth=0.6)
    axes.set_ylabel("first byte after, s")
    axes.legend(loc="upper left", ncols=2, frameon=False)


def _decisions(axes: Axes, outcome: Outcome) -> None:
    moments = [at for at, _ in outcome.decisions]
    for (at, decision), until in zip(outcome.decisions, [*moments[1:], outcome.end], strict=True):
        axes.bar(at, decision.local, width=until - at, align="edge", color=_LOCAL)
        axes.bar(at, decision.remote, width=until - at, bottom=decision.local, align="edge", color=_REMOTE)
    for at, reason in _reasons(outcome):
        # What would run out of the picture ends at its edge.
        late = at > 0.92 * outcome.end
        side, place, gap = ("right", outcome.end, 0) if late else ("left", at, 2)
        axes.annotate(
            reason, (place, 104), xytext=(gap, 0), textcoords="offset points", fontsize=9, color=_INK, ha=side
        )
    axes.set_ylabel("decided, %")
    axes.set_ylim(0, 135)
    axes.set_yticks((0, 50, 100))


def _means(steps: Sequence[Step], edges: numpy.ndarray) -> numpy.ndarray:
    """Return the mean in flight between each two edges."""
    times = numpy.array([step.at for step in steps])
    counts = numpy.array([step.number for step in steps])
    areas = numpy.concatenate(([0.0], numpy.cumsum(counts[:-1] * numpy.diff(times))))
    return numpy.asarray(numpy.diff(numpy.interp(edges, times, areas)) / numpy.diff(edges))


def _reasons(outcome: Outcome) -> list[tuple[float, str]]:
    """Return each reason where it begins; the steps of one reason are one."""
    reasons: list[tuple[float, str]] = []
    for at, decision in outcome.decisions:
        if not reasons or reasons[-1][1] != decision.reason:
            reasons.append((at, decision.reason))
    return reasons
