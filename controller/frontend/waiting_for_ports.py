"""Who waits for which port of the gateway, and who of them is told that it became free. Pure.

Thousands may wait for one port, or for any, and one of them gets it. So the first of them is told at once, and the
others one by one: each of them may have it should those before it not take it, and has another holder to name if not.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from controller.frontend.claimants import Claimants
from controller.frontend.claims import Seniority
from controller.runtime.line import WaitingLine
from controller.store.objects import ObjectRef

_ANY = 0
"""The place of those who wait for a port, whichever it is."""


class PortTurn(NamedTuple):
    """The order of those who wait for one port: who is served already, on another one, then the older."""

    is_new: bool
    age: Seniority


class WaitingForPorts:
    """Models that asked for a port in vain, for a certain one or for any.

    To wait, to wait no longer, and to be told costs no more than a search among those who wait for the same.
    """

    def __init__(self) -> None:
        self._wanted: dict[ObjectRef, int] = {}
        self._claimants: dict[int, Claimants[PortTurn]] = {}
        # Ports that became free, and not all who wait for them have heard of it.
        self._untold: WaitingLine[int] = WaitingLine()

    def wait(self, model: ObjectRef, port: int | None, turn: PortTurn) -> None:
        """Let a model wait for a port, or for any (None), and for nothing else."""
        self.end(model)
        self._wanted[model] = wanted = _ANY if port is None else port
        self._claimants.setdefault(wanted, Claimants()).put(model, turn)

    def end(self, model: ObjectRef) -> None:
        """Let a model wait no longer, if it does."""
        wanted = self._wanted.pop(model, None)
        if wanted is None:
            return
        claimants = self._claimants[wanted]
        claimants.remove(model)
        if claimants.winner is None and wanted not in self._untold:
            del self._claimants[wanted]

    def freed(self, ports: Iterable[int]) -> frozenset[ObjectRef]:
        """Take in that ports became free; return who is to be looked at first. The others come from `next_to_tell`."""
        first = set()
        for port in {_ANY, *ports}:
            if (claimants := self._claimants.get(port)) and claimants.winner:
                first.add(claimants.winner)
                claimants.begin_telling()
                self._untold.add(port)
        return frozenset(first)

    @property
    def tells(self) -> bool:
        """Whether there are models to be told yet."""
        return bool(self._untold)

    def next_to_tell(self) -> ObjectRef | None:
        """Return the next model to be looked at, since what it waits for became free; None if all were."""
        while (port := self._untold.take()) is not None:
            claimants = self._claimants[port]
            if told := claimants.tell():
                self._untold.add(port)
                return told
            if claimants.winner is None:
                del self._claimants[port]
        return None
