"""Which part of the requests stayed at the replicas, in the time that a measurement is of. Pure.

Rules in front of the law change the split as well: a remote backend that fails, replicas that are gone. What is
measured over a time with such changes in it is of the mean of what stayed. If nothing were concluded until a whole
window was of one split, then nothing would ever be where they come more often than a window is long.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Annotated

from pydantic import AwareDatetime, Field

from controller.api.schema.values import ForeignValue

# So many are remembered: of more, those two that follow one another and are the shortest become one.
_MOST = 16


class Stayed(ForeignValue):
    """Since when so much stayed at the replicas, from 0 to 1: until the next one."""

    since: AwareDatetime
    local: Annotated[float, Field(ge=0, le=1)]


def with_another(
    stays: tuple[Stayed, ...], one: Stayed, until: datetime, oldest: datetime | None
) -> tuple[Stayed, ...]:
    """Add what stayed until now, and forget what nothing that is measured is of: it ended before `oldest`."""
    known = [*stays, one]
    while oldest is not None and len(known) > 1 and known[1].since <= oldest:
        del known[0]
    if len(known) <= _MOST:
        return tuple(known)
    ends = [*(later.since for later in known[1:]), until]
    _, at = min((end - first.since, at) for at, (first, end) in enumerate(zip(known, ends[1:], strict=False)))
    local = mean_of(known[at : at + 2], known[at].since, ends[at + 1])
    return (*known[:at], Stayed(since=known[at].since, local=local), *known[at + 2 :])


def mean_of(stays: Iterable[Stayed], begins: datetime, ends: datetime) -> float:
    """Return the mean of what stayed between two moments, or what did at that one; the first began no later."""
    known = [one for one in stays if one.since < ends or one.since <= begins]
    if ends <= begins:
        return known[-1].local
    spans = pairwise([*(max(one.since, begins) for one in known), ends])
    lasted = [max(until - since, timedelta(0)) / (ends - begins) for since, until in spans]
    return min(sum(one.local * part for one, part in zip(known, lasted, strict=True)), 1.0)
