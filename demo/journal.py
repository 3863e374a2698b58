"""What one server does with its requests, written down by itself, a line for each change.

A file and no endpoint: what was written is there after SIGKILL, and so says what the server had begun. Moments are
`time.monotonic()`, one clock for all processes.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from tests.support.load import Step

_STARTED, _BEGUN, _FREED, _ENDED, _KILLED = "started", "begun", "freed", "ended", "killed"


class Entry(NamedTuple):
    """From `at` on, `in_flight` requests wait for a place or have one; `answer` is the one that changed, and how."""

    at: float
    in_flight: int
    change: str
    answer: str


class Journal:
    """Writes. A server that starts has nothing in flight."""

    def __init__(self, path: Path) -> None:
        # Unbuffered: each line is one write at the end of the file.
        self._file = path.open("ab", buffering=0)
        self._count = 0
        self._write(_STARTED)

    @contextlib.contextmanager
    def answering(self, answer: str) -> Iterator[Callable[[], None]]:
        """Note the beginning and the end of an answer; call what is yielded once its place is free."""
        occupied = True

        def free() -> None:
            nonlocal occupied
            occupied = False
            self._count -= 1
            self._write(_FREED, answer)

        self._count += 1
        self._write(_BEGUN, answer)
        try:
            yield free
        finally:
            self._count -= occupied
            self._write(_ENDED, answer)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self, change: str, answer: str = "-") -> None:
        self._file.write(_line(time.monotonic(), self._count, change, answer))


def end_journal(path: Path, at: float) -> None:
    """Write that nothing is in flight any more: its server is dead."""
    with path.open("ab") as file:
        file.write(_line(at, 0, _KILLED, "-"))


def read_journal(path: Path) -> tuple[Entry, ...]:
    """Return what was written so far; nothing if nobody has begun."""
    if not path.exists():
        return ()
    lines = (line.split() for line in path.read_text().splitlines())
    return tuple(Entry(float(at), int(count), change, answer) for at, count, change, answer in lines)


def in_flight_now(path: Path) -> int:
    """Return how many requests are in flight by the last line that was written; 0 if nobody has begun."""
    if not path.exists():
        return 0
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 200))  # longer than any line
        return int(file.read().splitlines()[-1].split()[1])


def flight_of(entries: Iterable[Entry]) -> tuple[Step, ...]:
    """Return how many requests were in flight when."""
    return tuple(Step(one.at, one.in_flight) for one in entries)


def begun_at(entries: Iterable[Entry]) -> tuple[float, ...]:
    """Return when each request came."""
    return tuple(one.at for one in entries if one.change == _BEGUN)


def spans_of(entries: Iterable[Entry]) -> Mapping[str, tuple[float, float]]:
    """Return from when to when each answer was in flight, by its name; without end what still is."""
    spans: dict[str, tuple[float, float]] = {}
    for one in entries:
        if one.change == _BEGUN:
            spans[one.answer] = (one.at, math.inf)
        elif one.change in (_STARTED, _KILLED):
            spans = {name: (begin, min(end, one.at)) for name, (begin, end) in spans.items()}
        elif one.answer in spans:
            begin, end = spans[one.answer]
            spans[one.answer] = (begin, min(end, one.at))
    return spans


def unfinished(entries: Iterable[Entry]) -> frozenset[str]:
    """Return the answers that the server, since it started last, has begun to work on and not sent to their end."""
    answers = set[str]()
    for one in entries:
        if one.change == _STARTED:
            answers.clear()
        elif one.change == _BEGUN:
            answers.add(one.answer)
        elif one.change == _ENDED:
            answers.discard(one.answer)
    return frozenset(answers)


def _line(at: float, in_flight: int, change: str, answer: str) -> bytes:
    return f"{at:.6f} {in_flight} {change} {answer}\n".encode()
