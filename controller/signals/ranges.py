"""How far back an expression of PromQL looks: what its value is an average, a rate or a maximum over. Pure.

This reads brackets and no more; whether the expression is right is a matter of Prometheus (its documentation,
"Querying Prometheus": "Time durations", "Subquery"; and "Recording rules": "Naming").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

MOST = timedelta(minutes=10)
"""A longer range is mostly there to compare with, and nobody wants to wait until a day is all new."""

_OF_THE_LAST = {"irate": 60.0, "idelta": 60.0, "last_over_time": 0.0}
"""What these functions use of a range, in seconds: two samples, at Prometheus' default interval, or one."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0, "y": 31536000.0}
_PART = re.compile(r"([0-9]+)(ms|[smhdwy])")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SECONDS = re.compile(r"[0-9]{1,9}(?:[.][0-9]{1,9})?")
# `job:requests:rate5m`: what was applied stands behind the last colon, the oldest last.
_APPLIED = re.compile(r"[a-zA-Z_]*[a-zA-Z]((?:[0-9]+(?:ms|[smhdwy]))+)")
# A text that has no end goes to the end, and no range has a bracket in it: so this is linear.
_TOKEN = re.compile(
    r"""(?P<skipped>\s+|\#[^\n]*|"(?:\\.|[^"\\])*(?:"|\Z|\\)|'(?:\\.|[^'\\])*(?:'|\Z|\\)|`[^`]*(?:`|\Z))"""
    r"""|\[(?P<range>[^\[\]]*)\]|(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)|(?P<sign>.)""",
    re.DOTALL,
)


@dataclass(slots=True)
class _Group:
    """What is in parentheses: whose arguments it is, the longest of its terms, and the term that was read last."""

    function: str = ""
    longest: float = 0.0
    last: float = 0.0

    def end(self) -> None:
        """End the last term: what follows is another one."""
        self.longest, self.last = max(self.longest, self.last), 0.0


def range_of(query: str) -> timedelta:
    """Return the longest range of an expression, `MOST` at most; a subquery adds to the ranges of what it asks.

    An offset is no range. Without any it is 0: a number of one moment.
    """
    groups, before = [_Group()], ""
    for token in _TOKEN.finditer(query):
        kind, text = token.lastgroup, token.group()
        if kind == "skipped":
            continue
        if kind == "range":
            groups[-1].last += _seconds(token["range"].partition(":")[0].strip())
        elif text == ")" and len(groups) > 1:
            ended = groups.pop()
            ended.end()
            groups[-1].last = min(ended.longest, _OF_THE_LAST.get(ended.function, ended.longest))
        else:
            groups[-1].end()
            if kind == "name":
                groups[-1].last = _recorded(text)
            elif text == "(":
                groups.append(_Group(before))
        before = text
    for group in groups:
        group.end()
    return min(timedelta(seconds=min(max(one.longest for one in groups), 1e6)), MOST)


def _recorded(name: str) -> float:
    """Say over how many seconds a recorded series is, by its name."""
    level, _, applied = name.rpartition(":")
    found = _APPLIED.fullmatch(applied) if level else None
    return _seconds(found[1]) if found else 0.0


def _seconds(written: str) -> float:
    """Read a duration of PromQL, or a number of seconds; 0 for what is neither, such as a calculation."""
    if _SECONDS.fullmatch(written):
        return float(written)
    if not _DURATION.fullmatch(written):
        return 0.0
    return sum(float(number[:12]) * _UNITS[unit] for number, unit in _PART.findall(written))
