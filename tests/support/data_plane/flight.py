"""How many requests were in flight at once, as the servers themselves saw it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from tests.support.data_plane.backends import Backend
from tests.support.data_plane.model import Model
from tests.support.load import Sample, most, steps_of

Span = tuple[float, float]


class Flight:
    """What some servers have in flight from now on, of all models or of one."""

    def __init__(self, backends: Sequence[Backend], model: Model | None = None) -> None:
        self._backends, self._model = backends, model
        self._begin()

    def after(self, answers: int) -> Callable[[Sample], None]:
        """Begin anew when a load has so many answers, which is no cold start any more: its `Traffic.on_sample`."""
        left = answers

        def count(_: Sample) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                self._begin()

        return count

    def _begin(self) -> None:
        for one in self._backends:
            one.spans(self._model)
        self._from = time.monotonic()

    def peaks(self) -> tuple[int, list[int]]:
        """The most of all together at one moment, and the most of each."""
        spans = self._spans()
        return most(steps_of(span for one in spans for span in one)), [most(steps_of(one)) for one in spans]

    def _spans(self) -> list[list[Span]]:
        """Take what each had, cut at the beginning."""
        spans = ([span for span in one.spans(self._model) if span[1] >= self._from] for one in self._backends)
        return [[(max(begin, self._from), end) for begin, end in one] for one in spans]
