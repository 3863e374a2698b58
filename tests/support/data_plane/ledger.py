"""How often a server was asked each request: counted where requests arrive, and kept when the server is killed."""

from __future__ import annotations

import mmap
import os
import weakref
from pathlib import Path

REQUESTS = 2**20
"""The requests that can be told apart, by a header `number` from 0 on."""


class Ledger:
    """One byte for each request in memory that a server and this process both map.

    It has no file on a disk: a server that counts does not wait while one is written.
    """

    def __init__(self, name: str) -> None:
        file = os.memfd_create(name)
        weakref.finalize(self, os.close, file)
        os.truncate(file, REQUESTS)
        self.path = Path(f"/proc/{os.getpid()}/fd/{file}")
        self._times = mmap.mmap(file, REQUESTS)

    def times(self, numbers: range = range(REQUESTS)) -> bytes:
        """Return how often each of these requests came."""
        return self._times[numbers.start : numbers.stop]

    def clear(self) -> None:
        self._times[:] = bytes(REQUESTS)
