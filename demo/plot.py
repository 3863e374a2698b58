"""The picture of one run: where the requests went, how long they took, what was decided."""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot
from matplotlib.axes import Axes

from demo.play import Outcome

_BIN = 0.5
_LOCAL, _REMOTE, _FAILED, _INK = "#3b7dd8", "#f2a33a", "#c62828", "#444444"


def draw(outcome: Outcome, path: Path) -> None:
    """Write the plot as PNG; the folder is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    figure, (rate, latency, split) = pyplot.subplots(
        3, 1, sharex=True, figsize=(11, 7.5), height_ratios=(3, 2, 1), layout="constrained"
    )
    _requests(rate, outcome)
    _latencies(latency, outcome)
    _decisions(split, outcome)
    for axes in (rate, latency, split):
        axes.spines[["top", "right"]].set_visible(False)
        axes.axvspan(outcome.killed, outcome.back, color=_FAILED, alpha=0.08, linewidth=0, zorder=0)
        for at, _ in _reasons(outcome)[1:]:
            axes.axvline(at, color=_INK, linewidth=1, linestyle=":")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _requests(axes: Axes, outcome: Outcome) -> None:
    bins = outcome.report.bins(_BIN)
    edges = [index * _BIN for index in range(len(bins))]
    bottom = [0.0] * len(bins)
    layers = (
        ("local", _LOCAL, [one.local for one in bins]),
        ("remote", _REMOTE, [one.remote for one in bins]),
        ("failed", _FAILED, [one.failed for one in bins]),
    )
    for label, colour, counts in layers:
        heights = [count / _BIN for count in counts]
        legend = f"{label}: {sum(counts)}"
        axes.bar(edges, heights, width=_BIN * 0.92, bottom=bottom, align="edge", color=colour, label=legend)
        bottom = [below + height for below, height in zip(bottom, heights, strict=True)]
    whole = outcome.report.summary
    axes.set_title(
        f"{whole.requests} requests, {whole.failed} failed: every local replica killed under load, and back",
        loc="left",
        fontweight="bold",
    )
    axes.set_ylabel("requests/s, by arrival")
    highest = max(bottom, default=1.0)
    axes.set_ylim(0, highest * 1.4)
    axes.legend(loc="upper left", frameon=False)
    marks = (
        (
            outcome.killed,
            "SIGKILL to all replicas:\nEnvoy alone up to the dotted line,\nthen the controller's decision",
        ),
        (outcome.back, "ready again"),
    )
    for moment, text in marks:
        axes.axvline(moment, color=_FAILED, linewidth=1.2)
        axes.annotate(
            text,
            (moment, highest * 1.37),
            xytext=(6, 0),
            textcoords="offset points",
            color=_FAILED,
            va="top",
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.9, "pad": 2},
        )


def _latencies(axes: Axes, outcome: Outcome) -> None:
    bins = outcome.report.bins(_BIN)
    middles = [(index + 0.5) * _BIN for index in range(len(bins))]
    axes.plot(middles, [one.p99 * 1000 for one in bins], ".-", color=_INK, linewidth=1, markersize=4, label="p99")
    axes.plot(middles, [one.p50 * 1000 for one in bins], ".-", color="#999999", linewidth=1, markersize=4, label="p50")
    axes.set_ylabel("latency, ms")
    axes.set_ylim(0, 1.3 * max((one.p99 * 1000 for one in bins if one.p99 == one.p99), default=1.0))
    axes.legend(loc="upper right", ncols=2, frameon=False)


def _decisions(axes: Axes, outcome: Outcome) -> None:
    end = max(sample.end for sample in outcome.report.samples)
    moments = [at for at, _ in outcome.decisions]
    for (at, decision), until in zip(outcome.decisions, [*moments[1:], end], strict=False):
        axes.bar(at, decision.local, width=until - at, align="edge", color=_LOCAL)
        axes.bar(at, decision.remote, width=until - at, bottom=decision.local, align="edge", color=_REMOTE)
    for at, reason in _reasons(outcome):
        axes.annotate(reason, (at, 104), xytext=(2, 0), textcoords="offset points", fontsize=9, color=_INK)
    axes.set_ylabel("decided, %")
    axes.set_ylim(0, 128)
    axes.set_yticks((0, 50, 100))
    axes.set_xlabel("seconds from the start of the load")
    axes.set_xlim(0, end)


def _reasons(outcome: Outcome) -> list[tuple[float, str]]:
    """Return each reason where it begins; the steps of one reason are one."""
    reasons: list[tuple[float, str]] = []
    for at, decision in outcome.decisions:
        if not reasons or reasons[-1][1] != decision.reason:
            reasons.append((at, decision.reason))
    return reasons
