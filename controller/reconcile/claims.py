"""What only one model may have: the port that Envoy listens on.

The model that holds a port keeps it, so that a mistake in a new object takes nothing from an old one. Whoever asks
first gets what is free; the caller asks in the order of who shall win.
"""

from __future__ import annotations

from controller.store.objects import ObjectRef


class Claims:
    """Which model holds which port, and which one each of the others waits for."""

    def __init__(self) -> None:
        self._holders: dict[int, ObjectRef] = {}
        self._held: dict[ObjectRef, int] = {}
        self._waiting: dict[ObjectRef, int] = {}

    def ask(self, model: ObjectRef, port: int) -> frozenset[ObjectRef]:
        """Take a port, or wait for it if another model holds it; until then a model keeps the port it has.

        Returns the models for which a port became free: they ask again.
        """
        if self._holders.setdefault(port, model) != model:
            self._waiting[model] = port
            return frozenset()
        self._waiting.pop(model, None)
        before, self._held[model] = self._held.get(model), port
        return self._freed(before) if before not in (None, port) else frozenset()

    def give_up(self, model: ObjectRef) -> frozenset[ObjectRef]:
        """Give up what a model holds and waits for; return the models for which a port became free."""
        self._waiting.pop(model, None)
        return self._freed(self._held.pop(model, None))

    def holder(self, port: int) -> ObjectRef | None:
        """Say which model holds a port."""
        return self._holders.get(port)

    def _freed(self, port: int | None) -> frozenset[ObjectRef]:
        if port is None:
            return frozenset()
        del self._holders[port]
        return frozenset(model for model, wanted in self._waiting.items() if wanted == port)
