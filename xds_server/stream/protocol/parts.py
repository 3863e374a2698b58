"""What takes long is done in parts, between which whoever does it lets others go on. Pure.

A generator does one part up to each `yield`, and returns what came of all of them. What is short is done at once.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from itertools import islice
from typing import TypeVar

T = TypeVar("T")

Parts = Generator[None, None, T]

MANY = 2_000
"""Names or resources that are one part: each takes one or two microseconds, those of some loops five."""


def at_once(parts: Parts[T]) -> T:
    """Do all parts, one behind the other; return what comes of them."""
    while True:
        try:
            next(parts)
        except StopIteration as end:
            result: T = end.value
            return result


def batches(values: Iterable[T], size: int = MANY) -> Iterator[list[T]]:
    """Cut values into lists of so many."""
    left = iter(values)
    while batch := list(islice(left, size)):
        yield batch
