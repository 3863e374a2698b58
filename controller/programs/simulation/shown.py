"""What `beamlit simulate` shows: what changed, the demand and what leaves over time, and the sum of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from controller.api.contract.route import Split
from controller.programs.simulation.history import IN_FLIGHT
from controller.programs.simulation.replay import MOST_DECISIONS, Moment

_ALL_LOCAL = Split.away(0)


def changes(moments: Sequence[Moment]) -> tuple[Moment, ...]:
    """Return the first moment, and those whose split or reason is another than before, or that begin or end to leave
    for want of room.
    """

    def told(one: Moment) -> tuple[Split, str, bool]:
        return one.decision.split, one.decision.reason, bool(one.overflow)

    return (moments[0], *(later for one, later in pairwise(moments) if told(one) != told(later)))


def summary(moments: Sequence[Moment]) -> Mapping[str, Any]:
    """Sum up a simulation: how often the split changed, how long and how much left, and how long nothing tells."""
    spans = [(a, (b.at - a.at).total_seconds()) for a, b in pairwise(moments)]
    seconds = sum(span for _, span in spans)
    splits = [_ALL_LOCAL, *(one.decision.split for one in moments)]
    found = {
        "seconds": seconds,
        "splitChanges": sum(a != b for a, b in pairwise(splits)),
        "secondsAway": sum(span for one, span in spans if one.away),
        "averageAwayPercent": round(sum(one.away * span for one, span in spans) / seconds, 2) if seconds else 0.0,
        "secondsLeftOut": sum(one.left_out.total_seconds() for one in moments),
    }
    if any(one.overflow is None for one in moments):
        return {**found, "averageOverflowPercent": None}
    overflow = sum((one.overflow or 0.0) * span for one, span in spans)
    return {**found, "averageOverflowPercent": round(overflow / seconds, 2) if seconds else 0.0}


def as_object(moments: Sequence[Moment]) -> Mapping[str, Any]:
    """Return a simulation as JSON: what changed, and the summary."""
    told = [
        {
            "at": _clock(one.at),
            "split": str(one.decision.split),
            "reason": one.decision.reason,
            "message": one.decision.message,
            "demand": one.demand,
            "overflow": None if one.overflow is None else round(one.overflow, 2),
        }
        for one in changes(moments)
    ]
    return {"changes": told, "summary": summary(moments)}


def as_table(moments: Sequence[Moment]) -> str:
    """Return what changed for people."""
    rows = [f"{'AT':<22}{'SPLIT':<9}{'REASON':<16}{'DEMAND':<9}BECAUSE"]
    for one in changes(moments):
        demand = "-" if one.demand is None else f"{one.demand:.0%}"
        rows.append(
            f"{_clock(one.at):<22}{one.decision.split!s:<9}{one.decision.reason:<16}{demand:<9}"
            f"{one.decision.message}{_without_room(one)}"
        )
    return "\n".join((*rows, "", _sentence(moments)))


def as_plot(moments: Sequence[Moment], rows: int = 40, width: int = 40) -> str:
    """Plot the demand and what leaves, a row for each part of the time."""
    begin, whole = moments[0].at, (moments[-1].at - moments[0].at) / rows
    most = max([2.0, *(min(one.demand, 10.0) for one in moments if one.demand is not None)])
    target = round(width / most)
    told = [f"{'':<22}demand ('|' is the target, '>' beyond the edge){'':<3}away"]
    last = moments[0]
    for row in range(rows if whole else 1):
        until = begin + (row + 1) * whole
        within = [one for one in moments if begin + row * whole <= one.at < until or (not whole)] or [last]
        last = within[-1]
        demand = max((one.demand for one in within if one.demand is not None), default=None)
        bar = _bar(demand, most, width, target)
        away = max(one.away for one in within)
        told.append(f"{_clock(within[0].at if whole else begin):<22}{bar:<50}{'*' * round(away / 5):<21}{away:.0f} %")
    return "\n".join((*told, "", _sentence(moments)))


def _bar(demand: float | None, most: float, width: int, target: int) -> str:
    if demand is None:
        return "?"
    filled = min(math.ceil(demand / most * width), width)
    cells = ["#" if cell < filled else " " for cell in range(width)]
    cells[min(target, width) - 1] = "|"
    return "".join(cells) + (">" if demand > most else "")


def _without_room(one: Moment) -> str:
    return f"; {one.overflow:.0f} % of all requests leave for want of room" if one.overflow else ""


def _sentence(moments: Sequence[Moment]) -> str:
    found = summary(moments)
    overflow = found["averageOverflowPercent"]
    told = f", {overflow} % for want of room (maxRequestsPerReplica)" if overflow else ""
    if overflow is None:
        told = (
            f". What leaves by maxRequestsPerReplica is not in it where the column {IN_FLIGHT!r} is not: requests in "
            "flight for each replica"
        )
    left_out = (
        f"\nNot simulated: {timedelta(seconds=found['secondsLeftOut'])} of it. Between two lines {MOST_DECISIONS} "
        "decisions are made at most; then the last split stays until the next line. Give lines that are closer."
        if found["secondsLeftOut"]
        else ""
    )
    return (
        f"In {timedelta(seconds=found['seconds'])}: {found['splitChanges']} changes of the split, requests away for "
        f"{timedelta(seconds=found['secondsAway'])}, {found['averageAwayPercent']} % of the time's requests on "
        f"average{told}.{left_out}"
    )


def _clock(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
