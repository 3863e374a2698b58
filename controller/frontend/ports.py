"""On which port of the gateway each model is served: a rule that says which port, and a table that keeps them apart.

The table is level-based: a model has the port that its status says, for as long as it says so, and beside it the one it
was given last. So a restart changes nothing, and if two statuses say one port (restored, or written by hand), the older
object has it.

A port is not given away before whoever moves from it has moved, but for one case: it is given in the same moment in
which its holder is given the port that it wants instead. So models get each other's ports, however many there are in
the circle, and a row of models moves up at once (docs/adr/0024).

A port that a program of ours listens on (`reserved`) is no model's, whatever its status says: Envoy could not listen
there, or would in its place.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container
from dataclasses import dataclass

from controller.frontend.claims import Refusal, Seniority
from controller.store.objects import ObjectRef

NO_OBJECTS: frozenset[ObjectRef] = frozenset()


@dataclass(frozen=True, slots=True)
class ServicePorts:
    """The gateway stands where clients call the Services: each model has the node port or the port of its Service.

    The model that has a port keeps it, against an older one too: an edit of one file takes nothing from another.
    """

    reserved: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class AllocatedPorts:
    """The gateway has ports of its own: each model is given the lowest free one, and keeps it for life.

    `first` and `last` are both included. A port that a status says is kept also if it lies outside of them, or if its
    namespace has more than `per_namespace`: a quota that is lowered takes nothing away (docs/adr/0032).
    """

    first: int = 10_000
    last: int = 29_999
    per_namespace: int = 1_000
    reserved: frozenset[int] = frozenset()

    def lowest_free(self, taken: Container[int]) -> int | None:
        """Return the lowest port that is not taken."""
        among = range(self.first, self.last + 1)
        return next((port for port in among if port not in taken and port not in self.reserved), None)


PortRule = ServicePorts | AllocatedPorts


@dataclass(frozen=True, slots=True)
class PortAllocation:
    """The port of a model, if it has one; and if it does not have the one it wants, why.

    `affected` are other models for which a port became free.
    """

    port: int | None
    refusal: Refusal | None = None
    affected: frozenset[ObjectRef] = NO_OBJECTS


_Choice = tuple[int | None, Refusal | None]

Wants = Callable[[ObjectRef], int | None]
"""Says which port another model wants; None for one that wants none, or may not have what it asks for."""


def wants_nothing(_: ObjectRef) -> None:
    """Say that nobody wants another port than it has."""


class GatewayPorts:
    """Who has which port, and who waits for one."""

    def __init__(self, rule: PortRule) -> None:
        self._rule = rule
        self._holders: dict[int, ObjectRef] = {}
        # How many ports the models of each namespace hold.
        self._held: Counter[str] = Counter()
        self._ages: dict[ObjectRef, Seniority] = {}
        self._in_status: dict[ObjectRef, int] = {}
        self._allocated_ports: dict[ObjectRef, int] = {}
        # Who asked in vain, for a certain port or for any; and, by namespace, who did so beyond the quota.
        self._waiting: dict[ObjectRef, int | None] = {}
        self._beyond_quota: dict[str, dict[ObjectRef, None]] = {}

    @property
    def for_life(self) -> bool:
        """Whether a model keeps its port also while it is not served."""
        return isinstance(self._rule, AllocatedPorts)

    def owns(self, model: ObjectRef, port: int | None) -> bool:
        """Say whether a port is a model's."""
        return port is not None and self._holders.get(port) == model

    def record(self, model: ObjectRef, age: Seniority, port: int | None) -> frozenset[ObjectRef]:
        """Take in which port the status of a model says; return the other models to look at again."""
        self._ages[model] = age
        port = None if port in self._rule.reserved else port
        before = self._replaced(self._in_status, model, port)
        affected = self._free(model, before) | self._next_within_quota(model.namespace)
        if port is None or port == before:
            return affected
        holder = self._holders.get(port)
        if holder is None:
            self._hold(port, model)
        elif holder != model and age < self._ages[holder]:
            self._hold(port, model)
            return affected | {holder}
        return affected

    def allocate(
        self, model: ObjectRef, wanted: int | None, kept: int | None, wants: Wants = wants_nothing
    ) -> PortAllocation:
        """Allocate the port that a model is served on: the one it wants, or else the one it is kept on.

        Both are what the model's Service and its present route say; None when it wants, or is kept on, none. `wants`
        says the same of others. Those of them that are given theirs with it are `affected`.
        """
        self._waiting.pop(model, None)
        self._beyond_quota.get(model.namespace, {}).pop(model, None)
        moving = () if wanted is None else self._moving(model, wanted, wants)
        for other, port in moving:
            self._hold(port, other)
            self._allocated_ports[other] = port
        if moving and wanted is not None:
            self._hold(wanted, model)
        chosen, refusal = self._choice(model, wanted, kept)
        affected = self._free(model, self._replaced(self._allocated_ports, model, chosen))
        if chosen is not None:
            self._hold(chosen, model)
        affected |= {other for other, _ in moving} | self._next_within_quota(model.namespace)
        return PortAllocation(chosen, refusal, affected)

    def forget(self, model: ObjectRef) -> frozenset[ObjectRef]:
        """Free what a model has; return the other models to look at again."""
        affected = self.allocate(model, None, None).affected
        affected |= self._free(model, self._in_status.pop(model, None))
        self._ages.pop(model, None)
        return affected | self._next_within_quota(model.namespace)

    def _choice(self, model: ObjectRef, wanted: int | None, kept: int | None) -> _Choice:
        asked = wanted if wanted is not None else kept
        if asked is None:
            return None, None
        if isinstance(self._rule, AllocatedPorts):
            return self._allocated(model, self._rule)
        holder = self._holders.get(asked)
        if asked in self._rule.reserved:
            whose = "one that `beamlit run` listens on itself (--xds-address, --admin-address)"
        elif holder in (None, model):
            return asked, None
        else:
            whose = f"already that of {holder}"
            self._waiting[model] = asked
        # Or the one that it was given so that another could have `kept`, and that it does not want any more.
        keepable = (kept, self._allocated_ports.get(model)) if kept is not None else ()
        present = next((port for port in keepable if self.owns(model, port)), None)
        return present, Refusal("Conflict", f"port {asked} is {whose}")

    def _moving(self, model: ObjectRef, wanted: int, wants: Wants) -> tuple[tuple[ObjectRef, int], ...]:
        """Find who has to move, and to which port, so that a model gets the port that it wants; none if one stays.

        The holder of that port moves to the one that it wants, whose holder moves on, and so forth, until a port is
        free or is the model's own.
        """
        if isinstance(self._rule, AllocatedPorts):
            return ()
        moving: dict[ObjectRef, int] = {}
        port = wanted
        while (holder := self._holders.get(port)) not in (None, model):
            next_port = wants(holder)
            if next_port in (None, port) or next_port in self._rule.reserved or holder in moving:
                return ()
            moving[holder] = port = next_port
        return tuple(moving.items())

    def _allocated(self, model: ObjectRef, rule: AllocatedPorts) -> _Choice:
        for port in (self._in_status.get(model), self._allocated_ports.get(model)):
            if self.owns(model, port):
                return port, None
        if self._held[model.namespace] >= rule.per_namespace:
            self._beyond_quota.setdefault(model.namespace, {})[model] = None
            return None, Refusal(
                "NoPort",
                f"namespace {model.namespace} has as many ports of the gateway as a namespace may have: "
                f"{rule.per_namespace} (modelsPerNamespace of the controller's configuration)",
            )
        free = rule.lowest_free(self._holders)
        if free is None:
            self._waiting[model] = None
            return None, Refusal("NoPort", f"all ports of the gateway, {rule.first} to {rule.last}, have a model")
        return free, None

    def _hold(self, port: int, model: ObjectRef) -> None:
        self._release(port)
        self._holders[port] = model
        self._held[model.namespace] += 1

    def _release(self, port: int) -> None:
        if holder := self._holders.pop(port, None):
            self._held[holder.namespace] -= 1
            if not self._held[holder.namespace]:
                del self._held[holder.namespace]

    def _next_within_quota(self, namespace: str) -> frozenset[ObjectRef]:
        """Return who may have a port, if its namespace has room: one, whose turn brings that of the next."""
        waiting = self._beyond_quota.get(namespace)
        if not waiting:
            self._beyond_quota.pop(namespace, None)
            return NO_OBJECTS
        has_room = isinstance(self._rule, AllocatedPorts) and self._held[namespace] < self._rule.per_namespace
        return frozenset({next(iter(waiting))}) if has_room else NO_OBJECTS

    def _replaced(self, ports: dict[ObjectRef, int], model: ObjectRef, port: int | None) -> int | None:
        before = ports.pop(model, None)
        if port is not None:
            ports[model] = port
        return before

    def _free(self, model: ObjectRef, port: int | None) -> frozenset[ObjectRef]:
        """Free a port that a model had, unless it still has it; return who waits for it."""
        if (
            port is None
            or not self.owns(model, port)
            or port in (self._in_status.get(model), self._allocated_ports.get(model))
        ):
            return NO_OBJECTS
        self._release(port)
        return frozenset(other for other, wanted in self._waiting.items() if wanted in (None, port))
