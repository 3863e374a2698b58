"""What only one model may have: the port that Envoy listens on.

The model that holds a claim keeps it, so that a mistake in a new object takes nothing from an old one; among models
that ask for it at the same time the older object wins.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

from controller.store.objects import ObjectRef


class Claimant(NamedTuple):
    """A model that asks, and when it was created (RFC 3339, so that text order is time order)."""

    created: str
    ref: ObjectRef


class Claims:
    """Who asks for what, and who has it. Changing one model's claim costs the same however many there are."""

    def __init__(self) -> None:
        self._asking: dict[Hashable, set[Claimant]] = {}
        self._holders: dict[Hashable, Claimant] = {}
        self._asked: dict[ObjectRef, tuple[Hashable, Claimant]] = {}

    def ask(self, claimant: Claimant, wanted: Hashable, *, holding: bool = False) -> frozenset[ObjectRef]:
        """Ask for `wanted` and give up whatever was asked for before; return the models this concerns.

        `holding` says that the model had it already before this process began.
        """
        if self._asked.get(claimant.ref) == (wanted, claimant):
            return frozenset()
        concerned = self.give_up(claimant.ref)
        self._asked[claimant.ref] = (wanted, claimant)
        self._asking.setdefault(wanted, set()).add(claimant)
        if holding and wanted not in self._holders:
            self._holders[wanted] = claimant
        return concerned | self._settle(wanted)

    def give_up(self, ref: ObjectRef) -> frozenset[ObjectRef]:
        """Give up what a model asked for; return the models this concerns."""
        if ref not in self._asked:
            return frozenset()
        wanted, claimant = self._asked.pop(ref)
        self._asking[wanted].discard(claimant)
        if self._holders.get(wanted) == claimant:
            del self._holders[wanted]
        return self._settle(wanted)

    def holder(self, wanted: Hashable) -> ObjectRef | None:
        """Say which model has it."""
        holder = self._holders.get(wanted)
        return holder and holder.ref

    def _settle(self, wanted: Hashable) -> frozenset[ObjectRef]:
        asking = self._asking.get(wanted)
        if not asking:
            self._asking.pop(wanted, None)
            return frozenset()
        if wanted in self._holders:
            return frozenset()
        winner = min(asking)
        self._holders[wanted] = winner
        return frozenset({winner.ref})
