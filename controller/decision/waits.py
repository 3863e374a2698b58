"""Waiting times: since when something is so, of a metric that varies by chance. Pure.

A wait ends with the first measurement that says otherwise, and each beginning and each end of one is remembered: a
write to the API server. A metric that varies around its bound would begin and break one off with every sample. So after
a wait was broken off the next one rests, for the longer the less happened before: twice as many measurements come to
half as many more waits. At the most it rests for as long as the wait itself takes, so at a constant demand there is one
wait in that time at most, and what is waited for comes by so much later at the most.
"""

from __future__ import annotations

from datetime import datetime, timedelta

# The part of a wait for which the next one rests at the least, so that no input causes more of them.
_LEAST = 8


def rest(whole: timedelta, quiet_since: datetime, broken_off: datetime) -> timedelta:
    """Say for how long no wait of `whole` begins after one was broken off, with nothing new since `quiet_since`."""
    return min(max((broken_off - quiet_since) / 2, whole / _LEAST), whole)


def begins_at(whole: timedelta, quiet_since: datetime, broken_off: datetime | None) -> datetime | None:
    """Say when the next wait may begin; None for at once."""
    return None if broken_off is None else broken_off + rest(whole, quiet_since, broken_off)


def waits_since(since: datetime | None, begins: datetime | None, now: datetime) -> datetime | None:
    """Say since when something is waited for that is so `now`: None while the next wait rests."""
    return since or (now if begins is None or now >= begins else None)
