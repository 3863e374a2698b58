"""How much is answered before others have their turn: who connects, who reads what was written, timers."""

from __future__ import annotations

import asyncio

_AT_ONCE, _SECONDS_AT_ONCE = 10, 0.001
"""So many answers, or for so long, and others have their turn."""


class Round:
    """What was answered in this round of the event loop.

    An answer is some tenths of a millisecond to some milliseconds: a thousand of them are seconds in which nobody could
    connect.
    """

    def __init__(self) -> None:
        self._answers = 0
        self._ends = 0.0

    @property
    def is_over(self) -> bool:
        """Whether others have their turn before there is another answer."""
        return self._answers >= _AT_ONCE or (self._answers > 0 and asyncio.get_running_loop().time() >= self._ends)

    def count(self) -> None:
        """Count an answer that was given."""
        if not self._answers:
            self._ends = asyncio.get_running_loop().time() + _SECONDS_AT_ONCE
            asyncio.get_running_loop().call_soon(self._end)
        self._answers += 1

    def _end(self) -> None:
        self._answers = 0
