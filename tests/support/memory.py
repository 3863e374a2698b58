"""How much memory something takes at its height, counted by Python itself: the same on a busy machine."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager


class Peak:
    """The most bytes there were at once beyond those at the beginning; known once the block has ended."""

    bytes = 0


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Count what is allocated while the block runs. It takes several times as long."""
    peak = Peak()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        yield peak
        peak.bytes = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
