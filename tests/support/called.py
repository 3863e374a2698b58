"""What is called, counted: for claims about cost that no clock can tell on a busy machine."""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any


def called(do: Callable[[], object]) -> Counter[str]:
    """Count the built-in functions that `do` calls, in this thread, by their names."""
    with counting_calls() as names:
        do()
    return names


@contextlib.contextmanager
def counting_calls() -> Iterator[Counter[str]]:
    """Count the built-in functions that are called in this thread, by their names."""
    names: Counter[str] = Counter()

    def counted(frame: FrameType, event: str, argument: Any) -> None:
        if event == "c_call":
            names[argument.__name__] += 1

    sys.setprofile(counted)
    try:
        yield names
    finally:
        sys.setprofile(None)
