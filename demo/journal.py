"""What one server has in flight, written down by itself, a line for each change: `MOMENT COUNT`.

A file and no endpoint: what was written is there after SIGKILL. Moments are `time.monotonic()`, one clock for all
processes.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from tests.support.load import Step


class Journal:
    """Writes. A server that starts has nothing in flight."""

    def __init__(self, path: Path) -> None:
        # Unbuffered: each line is one write at the end of the file.
        self._file = path.open("ab", buffering=0)
        self._count = 0
        self._write()

    @contextlib.contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one request while it is here."""
        self._count += 1
        self._write()
        try:
            yield
        finally:
            self._count -= 1
            self._write()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _write(self) -> None:
        self._file.write(b"%.6f %d\n" % (time.monotonic(), self._count))


def end_journal(path: Path, at: float) -> None:
    """Write that nothing is in flight any more: its server is dead."""
    with path.open("ab") as file:
        file.write(b"%.6f 0\n" % at)


def read_journal(path: Path) -> tuple[Step, ...]:
    """Return what was written so far; nothing if nobody has begun."""
    if not path.exists():
        return ()
    lines = (line.split() for line in path.read_text().splitlines())
    return tuple(Step(float(moment), int(count)) for moment, count in lines)
