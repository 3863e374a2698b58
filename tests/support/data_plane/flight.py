"""How many requests were in flight at once, as the servers themselves saw it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from tests.support.data_plane.backends import Backend
from tests.support.data_plane.model import Model
from tests.support.load import most, steps_of

Span = tuple[float, float]


class Flight:
    """What some servers have in flight from now on, or from a moment later (`settle` seconds) that is no cold start.

    Of all models, or of one.
    """

    def __init__(self, backends: Sequence[Backend], settle: float = 0, model: Model | None = None) -> None:
        self._backends, self._model = backends, model
        for one in backends:
            one.spans(model)
        self._from = time.monotonic() + settle

    def peaks(self) -> tuple[int, list[int]]:
        """The most of all together at one moment, and the most of each."""
        spans = [[span for span in one.spans(self._model) if span[1] >= self._from] for one in self._backends]
        each = [most(steps_of(self._cut(one))) for one in spans]
        return most(steps_of(self._cut(span for one in spans for span in one))), each

    def _cut(self, spans: Iterable[Span]) -> Iterable[Span]:
        return ((max(begin, self._from), end) for begin, end in spans)
