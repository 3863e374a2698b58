"""Waiting times: since when something is so, of a metric that varies by chance. Pure.

A wait begins with a measurement and ends with one: it is counted from the moment that the first is of, and is over once
there is one of its end. So the time in which nobody measures tells nothing, and a metric that is late loses nothing.

The first measurement that says otherwise breaks a wait off, and each beginning and each end of one is remembered: a
write to the API server. A metric that varies around its bound would begin and break one off with every sample. So after
a wait was broken off the next one rests, for the longer the less happened before: twice as many measurements come to
half as many more waits. At the most it rests for as long as the wait itself takes, so at a constant demand there is one
wait in that time at most, and what is waited for comes by so much later at the most.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from controller.api.timing import REAL

# The part of a wait for which the next one rests at the least, so that no input causes more of them.
_LEAST = 8

# A source is asked again after so long, and has as long to answer. So what is measured at the end of a wait may be
# known a little later; that is at the most a part of it.
_ASKED_EVERY = timedelta(seconds=REAL.signals.prometheus.every)
_LATE = _ASKED_EVERY + timedelta(seconds=REAL.signals.prometheus.answer)
_PART = 6


def rest(whole: timedelta, quiet_since: datetime, broken_off: datetime) -> timedelta:
    """Say for how long no wait of `whole` begins after one was broken off, with nothing new since `quiet_since`."""
    return min(max((broken_off - quiet_since) / 2, whole / _LEAST), whole)


def begins_at(whole: timedelta, quiet_since: datetime, broken_off: datetime | None) -> datetime | None:
    """Say when the next wait may begin; None for at once."""
    return None if broken_off is None else broken_off + rest(whole, quiet_since, broken_off)


def waits_since(since: datetime | None, begins: datetime | None, at: datetime, now: datetime) -> datetime | None:
    """Say since when something is waited for that was measured `at`: None while the next wait rests."""
    if since is not None or begins is None:
        return since or min(at, now)
    return max(min(at, now), begins) if now >= begins else None


def is_over(whole: timedelta, since: datetime, measured_at: datetime, now: datetime) -> bool:
    """Whether a wait of `whole` is over, and what was measured at its end, or just before it, still says so.

    A source that does not answer any more says nothing, though what it said last is not old yet.
    """
    return not whole or (now >= since + whole and measured_at >= measured_from(whole, since))


def measured_from(whole: timedelta, since: datetime) -> datetime:
    """Say from when on a measurement ends a wait of `whole`."""
    return since + whole - min(_LATE, whole / _PART)


def ends_at(whole: timedelta, since: datetime) -> tuple[datetime, ...]:
    """Say when a wait of `whole` may end: then, or if it is a short one, when a source was asked once more."""
    return (since + whole, since + whole + _ASKED_EVERY) if timedelta(0) < whole < _PART * _LATE else (since + whole,)
