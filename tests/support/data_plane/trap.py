"""A trap: two models on one Envoy that differ in one setting, and the same load for both at the same time.

The one that has the setting is well while the one that lacks it is in the trouble that the setting keeps away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.mutation import Change, both
from tests.support.data_plane.plane import Plane

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Variants(Generic[T]):
    """What there is of each variant: `held` has the setting, `removed` lacks it."""

    held: T
    removed: T

    def each(self, of: Callable[[T], R]) -> Variants[R]:
        """Return what this gives of each."""
        return Variants(of(self.held), of(self.removed))

    async def at_once(self, play: Callable[[T], Awaitable[R]]) -> Variants[R]:
        """Play the same with both at the same time; what one of them raises ends both."""

        async def played(one: T) -> R:
            return await play(one)

        async with asyncio.TaskGroup() as group:
            held, removed = group.create_task(played(self.held)), group.create_task(played(self.removed))
        return Variants(held.result(), removed.result())


async def serve_both(plane: Plane, wanted: Wanted, removed: Change) -> Variants[Model]:
    """Serve a model, and beside it the same without what `removed` takes out."""
    without = replace(wanted, change=both(wanted.change, removed))
    return await Variants(wanted, without).at_once(plane.serve)
