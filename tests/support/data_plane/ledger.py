"""How often a server was asked each request: counted where requests arrive, and kept when the server is killed."""

from __future__ import annotations

import mmap
from pathlib import Path

REQUESTS = 2**18
"""The requests of one load that can be told apart, by a header `number` from 0 on."""


class Ledger:
    """One byte for each request in a file that a server and this process both map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("a+b") as file:
            file.truncate(REQUESTS)
        with path.open("r+b") as file:
            self._times = mmap.mmap(file.fileno(), REQUESTS)

    def times(self, numbers: range = range(REQUESTS)) -> bytes:
        """Return how often each of these requests came."""
        return self._times[numbers.start : numbers.stop]

    def clear(self) -> None:
        self._times[:] = bytes(REQUESTS)
