"""Those who ask for one thing that only one of them may have, in an order. Pure."""

from __future__ import annotations

import bisect
from typing import Generic, TypeVar

from controller.store.objects import ObjectRef

Order = TypeVar("Order", bound=tuple[object, ...])


class Claimants(Generic[Order]):
    """Those who ask for one thing, in their order: the first has it.

    The others are told one by one when it is another who has it. That begins behind the winner, and behind whoever was
    told last it goes on.
    """

    def __init__(self) -> None:
        self._precedences: dict[ObjectRef, Order] = {}
        self._order: list[tuple[Order, ObjectRef]] = []
        self._told: tuple[Order, ObjectRef] | None = None

    @property
    def winner(self) -> ObjectRef | None:
        """The first in the order; None if there is nobody."""
        return self._order[0][1] if self._order else None

    def put(self, model: ObjectRef, precedence: Order) -> None:
        """Let a model stand in the order, or elsewhere in it."""
        if self._precedences.get(model) != precedence:
            self.remove(model)
            self._precedences[model] = precedence
            bisect.insort(self._order, (precedence, model))

    def remove(self, model: ObjectRef) -> None:
        """Let a model stand there no longer, if it does."""
        precedence = self._precedences.pop(model, None)
        if precedence is not None:
            del self._order[bisect.bisect_left(self._order, (precedence, model))]

    def begin_telling(self) -> None:
        """Begin to tell those behind the first."""
        self._told = self._order[0] if self._order else None

    def tell(self) -> ObjectRef | None:
        """Return the next one who is to hear of it; None if all have."""
        at = bisect.bisect_right(self._order, self._told) if self._told else len(self._order)
        self._told = self._order[at] if at < len(self._order) else None
        return self._told[1] if self._told else None
