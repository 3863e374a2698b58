"""On which port of the gateway each model is served: a rule that says which port, and a table that keeps them apart.

The table is level-based: a model has the port that its status says, for as long as it says so, and beside it the one it
was given last. So a restart changes nothing, and if two statuses say one port (restored, or written by hand), the one
has it that was given it here. After a restart nobody knows that: then it is the one to whose namespace Services lead
clients there, or who fixes the port, or the older object.

A model may fix its port (`spec.servingPort`). Where the gateway has ports of its own, such a port is the model's from
the moment in which the model is seen, served or not, if nobody has it: it counts for the quota of its namespace, and
nobody else is given it while the model exists. Of two models that fix a port which neither of them had, the older has
it.

A port is not given away before whoever moves from it has moved, but for one case: it is given in the same moment in
which its holder is given the port that it wants instead. So models get each other's ports, however many there are in
the circle, and a row of models moves up at once (docs/adr/0024).

A port that becomes free is given again after all others: clients of the model that had it may still call it, and shall
not reach somebody else's. Who had it gets it back, if it comes again by its name (docs/adr/0049). While Services still
lead clients to it, it is given to nobody of another namespace than theirs, whoever asks for it, and counts for the
quota of theirs (docs/adr/0060).

A port that a program of ours listens on (`reserved`) is no model's, whatever its status says: Envoy could not listen
there, or would in its place. Some of them are known only when the program says so: who has such a port leaves it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import chain

from controller.frontend.claims import Refusal, Seniority
from controller.frontend.kept_ports import KeptPorts
from controller.frontend.waiting_for_ports import PortTurn, WaitingForPorts
from controller.store.objects import ObjectRef

FIXED = "spec.servingPort"

# Of so many models that are gone it is remembered which port they had.
_MOST_FORMER = 20_000

NO_OBJECTS: frozenset[ObjectRef] = frozenset()


@dataclass(frozen=True, slots=True)
class ServicePorts:
    """The gateway stands where clients call the Services: each model has the node port or the port of its Service.

    The model that has a port keeps it, against an older one too: an edit of one file takes nothing from another.
    """

    reserved: frozenset[int] = frozenset()


@dataclass(frozen=True, slots=True)
class AllocatedPorts:
    """The gateway has ports of its own: each model is given the one that it fixes or the next free one, for life.

    `first` and `last` are both included. A port that a status says is kept also if it lies outside of them, or if its
    namespace has more than `per_namespace`: a quota that is lowered takes nothing away (docs/adr/0032).
    """

    first: int = 10_000
    last: int = 29_999
    per_namespace: int = 1_000
    reserved: frozenset[int] = frozenset()

    def refusal_of(self, port: int) -> Refusal | None:
        """Say why no model can fix a port; None if one can."""
        if not self.first <= port <= self.last:
            words = f"must be a port that the gateway has for models, {self.first} to {self.last}, is {port}"
            return Refusal("Invalid", f"{FIXED}: {words}")
        if port in self.reserved:
            return Refusal("Conflict", f"{FIXED}: port {port} is one that a program of the gateway listens on")
        return None

    def next_free(self, is_free: Callable[[int], bool], after: int) -> int | None:
        """Return the first port after `after` that is free, from the first one on behind the last one."""
        among = chain(range(max(after + 1, self.first), self.last + 1), range(self.first, self.last + 1))
        return next((port for port in among if port not in self.reserved and is_free(port)), None)

    def has(self, port: int) -> bool:
        """Tell whether a port is one of the gateway's own."""
        return self.first <= port <= self.last and port not in self.reserved


PortRule = ServicePorts | AllocatedPorts


@dataclass(frozen=True, slots=True)
class PortAllocation:
    """The port of a model, if it has one; and if it does not have the one it wants, why.

    `affected` are other models for which a port became free: of many that wait for one, the first.
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
        # The port of its own that the gateway gave last; as long as it gave none, the highest that a status said. And
        # who had which of those that are free.
        self._last_given, self._gave_any = 0, False
        # Whether any model was given a port here: all statuses of before are recorded by then.
        self._has_begun = False
        self._former: dict[ObjectRef, int] = {}
        # How many ports the models of each namespace hold.
        self._held: Counter[str] = Counter()
        # Those that Services lead to, whether a model holds them or not.
        self._kept = KeptPorts(self._holders.get)
        self._ages: dict[ObjectRef, Seniority] = {}
        self._in_status: dict[ObjectRef, int] = {}
        self._allocated_ports: dict[ObjectRef, int] = {}
        self._fixed: dict[ObjectRef, int] = {}
        # Who asked in vain, for a certain port or for any; and, by namespace, who did so beyond the quota.
        self._waiting = WaitingForPorts()
        self._beyond_quota: dict[str, dict[ObjectRef, None]] = {}

    @property
    def for_life(self) -> bool:
        """Whether a model keeps its port also while it is not served."""
        return isinstance(self._rule, AllocatedPorts)

    def owns(self, model: ObjectRef, port: int | None) -> bool:
        """Say whether a port is a model's."""
        return port is not None and self._holders.get(port) == model

    def record(
        self, model: ObjectRef, age: Seniority, port: int | None, fixed: int | None = None
    ) -> frozenset[ObjectRef]:
        """Take in which port the status of a model says, and which one its spec fixes.

        Returns the other models to look at again.
        """
        self._ages[model] = age
        port = None if port in self._rule.reserved else port
        before = self._replaced(self._in_status, model, port)
        affected = self._free(model, self._replaced(self._fixed, model, fixed)) | self._free(model, before)
        if port is not None and port != before:
            holder = self._holders.get(port)
            is_anothers = holder is not None and holder != model
            if holder is None or (is_anothers and self._goes_before(model, holder, port)):
                affected |= self._take(port, model)
        affected |= self._hold_fixed(model, self._rule)
        return affected | self._next_within_quota(model.namespace)

    def reserve(self, ports: frozenset[int]) -> frozenset[ObjectRef]:
        """Take in more ports that programs listen on; return the models that had one, which are to have another."""
        more = ports - self._rule.reserved
        if not more:
            return NO_OBJECTS
        self._rule = replace(self._rule, reserved=self._rule.reserved | more)
        affected = frozenset(self._holders[port] for port in more if port in self._holders)
        for model in affected:
            for said in (self._in_status, self._allocated_ports):
                if said.get(model) in more:
                    del said[model]
        for port in more:
            self._release(port)
        return affected

    def allocate(
        self, model: ObjectRef, wanted: int | None, kept: int | None, wants: Wants = wants_nothing
    ) -> PortAllocation:
        """Allocate the port that a model is served on: the one it wants, or else the one it is kept on.

        Both are what the model's Service and its present route say; None when it wants, or is kept on, none. `wants`
        says the same of others. Those of them that are given theirs with it are `affected`.
        """
        self._has_begun |= wanted is not None or kept is not None
        self._waiting.end(model)
        self._beyond_quota.get(model.namespace, {}).pop(model, None)
        asked = self._asked(model, wanted)
        moving = () if asked is None else self._moving(model, asked, wants)
        for other, port in moving:
            self._hold(port, other)
            self._allocated_ports[other] = port
        if moving and asked is not None:
            self._hold(asked, model)
        chosen, refusal = self._choice(model, wanted, kept)
        affected = self._free(model, self._replaced(self._allocated_ports, model, chosen))
        if chosen is not None:
            self._hold(chosen, model)
        affected |= {other for other, _ in moving} | self._next_within_quota(model.namespace)
        return PortAllocation(chosen, refusal, affected)

    def forget(self, model: ObjectRef) -> frozenset[ObjectRef]:
        """Free what a model has; return the other models to look at again."""
        affected = self.allocate(model, None, None).affected
        affected |= self._free(model, self._fixed.pop(model, None))
        affected |= self._free(model, self._in_status.pop(model, None))
        self._ages.pop(model, None)
        return affected | self._next_within_quota(model.namespace)

    def keep(self, service: ObjectRef, ports: frozenset[int]) -> frozenset[ObjectRef]:
        """Take in which ports of the gateway a Service leads clients to; return the models to look at again.

        What a namespace has no room for in its quota is not kept for it, unless a model of its own holds it now.
        """
        rule = self._rule
        if not isinstance(rule, AllocatedPorts):
            return NO_OBJECTS
        owned = frozenset(port for port in ports if rule.has(port))
        given_up = self._kept.keep(service, owned, lambda namespace, port: self._may_keep(namespace, port, rule))
        if not given_up:
            return NO_OBJECTS
        return self._waiting.freed(given_up) | self._next_within_quota(service.namespace)

    @property
    def tells(self) -> bool:
        """Whether models are to be told yet that a port became free."""
        return self._waiting.tells

    def next_to_tell(self) -> ObjectRef | None:
        """Return the next of them, to be looked at again; None if all were."""
        return self._waiting.next_to_tell()

    def _wait(self, model: ObjectRef, port: int | None) -> None:
        age = self._ages.get(model, Seniority("", model.namespace, model.name))
        self._waiting.wait(model, port, PortTurn(model not in self._in_status, age))

    def _may_keep(self, namespace: str, port: int, rule: AllocatedPorts) -> bool:
        holder = self._holders.get(port)
        return (holder is not None and holder.namespace == namespace) or self._has_room(namespace, rule)

    def _choice(self, model: ObjectRef, wanted: int | None, kept: int | None) -> _Choice:
        asked = wanted if wanted is not None else kept
        if asked is None:
            return None, None
        if isinstance(self._rule, AllocatedPorts):
            return self._allocated(model, self._rule)
        holder = self._holders.get(asked)
        if asked in self._rule.reserved:
            whose = "one that `beamlit run` needs itself (--xds-address, --admin-address, --gateway-port)"
        elif holder in (None, model):
            return asked, None
        else:
            whose = f"already that of {holder}"
            self._wait(model, asked)
        # Or the one that it was given so that another could have `kept`, and that it does not want any more.
        keepable = (kept, self._allocated_ports.get(model)) if kept is not None else ()
        present = next((port for port in keepable if self.owns(model, port)), None)
        field = f"{FIXED}: " if asked == self._fixed.get(model) else ""
        return present, Refusal("Conflict", f"{field}port {asked} is {whose}")

    def _asked(self, model: ObjectRef, wanted: int | None) -> int | None:
        """Return the very port that a model is to have; None if any will do, or it cannot have that one."""
        if wanted is None or isinstance(self._rule, ServicePorts):
            return wanted
        fixed = self._fixed.get(model)
        return None if fixed is None or self._rule.refusal_of(fixed) else fixed

    def _moving(self, model: ObjectRef, wanted: int, wants: Wants) -> tuple[tuple[ObjectRef, int], ...]:
        """Find who has to move, and to which port, so that a model gets the port that it wants; none if one stays.

        Nor does any move if one would be called by clients of another namespace.

        The holder of that port moves to the one that it wants, whose holder moves on, and so forth, until a port is
        free or is the model's own.
        """
        moving: dict[ObjectRef, int] = {}
        port, mover = wanted, model
        while (holder := self._holders.get(port)) not in (None, model):
            next_port = self._asked(holder, wants(holder))
            if next_port in (None, port) or next_port in self._rule.reserved or holder in moving:
                return ()
            if self._is_kept_from(mover, port):
                return ()
            moving[holder] = port = next_port
            mover = holder
        return () if self._is_kept_from(mover, port) else tuple(moving.items())

    def _allocated(self, model: ObjectRef, rule: AllocatedPorts) -> _Choice:
        fixed = self._fixed.get(model)
        if self.owns(model, fixed):
            return fixed, None
        has = (self._in_status.get(model), self._allocated_ports.get(model))
        present = next((port for port in has if self.owns(model, port)), None)
        if fixed is not None and (refusal := self._refusal_of_fixed(model, fixed, rule)):
            return present, refusal
        if present is not None:
            return (present if fixed is None else fixed), None
        if not self._has_room(model.namespace, rule, fixed or self._former.get(model)):
            self._beyond_quota.setdefault(model.namespace, {})[model] = None
            return None, Refusal(
                "NoPort",
                f"namespace {model.namespace} has as many ports of the gateway as a namespace may have: "
                f"{rule.per_namespace} (modelsPerNamespace of the controller's configuration)",
            )
        free = self._next_free(model, rule) if fixed is None else fixed
        if free is None:
            self._wait(model, None)
            return None, Refusal("NoPort", f"all ports of the gateway, {rule.first} to {rule.last}, have a model")
        return free, None

    def _next_free(self, model: ObjectRef, rule: AllocatedPorts) -> int | None:
        """Find a port for a model that has none: the one that it had before, or the next one."""
        former = self._former.get(model)
        if former is not None and self._is_free(former, model) and rule.has(former):
            return former
        free = rule.next_free(lambda port: self._is_free(port, model), self._last_given)
        self._last_given, self._gave_any = free or self._last_given, True
        return free

    def _is_free(self, port: int, model: ObjectRef) -> bool:
        return port not in self._holders and not self._is_kept_from(model, port)

    def _is_kept_from(self, model: ObjectRef, port: int) -> bool:
        """Tell whether clients of another namespace than the model's may still be led to a port."""
        return self._kept.other_than(model.namespace, port) is not None

    def _has_room(self, namespace: str, rule: AllocatedPorts, port: int | None = None) -> bool:
        """Tell whether a namespace may have a port more; `port` is the one, if it is known: it may be kept already."""
        return self._held[namespace] + self._kept.besides(namespace, but=port) < rule.per_namespace

    def _refusal_of_fixed(self, model: ObjectRef, fixed: int, rule: AllocatedPorts) -> Refusal | None:
        """Say why a model does not have the port that it fixes, but for the quota; it hears of it once it is free."""
        if refusal := rule.refusal_of(fixed):
            return refusal
        holder = self._holders.get(fixed)
        if holder not in (None, model):
            words = f"port {fixed} is already that of {holder}"
        elif holder is None and (namespace := self._kept.other_than(model.namespace, fixed)):
            words = (
                f"port {fixed} becomes free once no Service of namespace {namespace} leads its clients there any more"
            )
        else:
            return None
        self._wait(model, fixed)
        return Refusal("Conflict", f"{FIXED}: {words}")

    def _hold_fixed(self, model: ObjectRef, rule: PortRule) -> frozenset[ObjectRef]:
        """Let a model hold the port that it fixes, if it may have it; return the other models to look at again.

        One that has a port already is within the quota, and leaves that one.
        """
        fixed = self._fixed.get(model)
        if not isinstance(rule, AllocatedPorts) or fixed is None or rule.refusal_of(fixed):
            return NO_OBJECTS
        holder = self._holders.get(fixed)
        if holder == model or self._is_kept_from(model, fixed):
            return NO_OBJECTS
        if holder is not None and not (self._only_fixes(holder, fixed) and self._ages[model] < self._ages[holder]):
            return NO_OBJECTS
        has_one = self.owns(model, self._in_status.get(model)) or self.owns(model, self._allocated_ports.get(model))
        if not has_one and not self._has_room(model.namespace, rule, fixed):
            return NO_OBJECTS
        return self._take(fixed, model)

    def _only_fixes(self, model: ObjectRef, port: int) -> bool:
        """Tell whether a model has a port by its spec alone, and was never given it."""
        return port not in (self._in_status.get(model), self._allocated_ports.get(model))

    def _goes_before(self, model: ObjectRef, holder: ObjectRef, port: int) -> bool:
        """Tell whether a port that a status says is that of its model, whoever holds it.

        Whom this table gave it keeps it while its own status says no other: no other status takes it away. Nor from who
        fixes it and was not served yet, but at the start. Else, of two statuses that say one port, that counts of whom
        clients are led there, then of who fixes it (so does the xDS server), then the older one's.
        """
        if self._allocated_ports.get(holder) == port and self._in_status.get(holder) in (None, port):
            return False
        if self._only_fixes(holder, port):
            return not self._has_begun
        mine, its = (
            (self._is_kept_from(one, port), self._fixed.get(one) != port, self._ages[one]) for one in (model, holder)
        )
        return mine < its

    def _take(self, port: int, model: ObjectRef) -> frozenset[ObjectRef]:
        """Let a model hold a port, whoever had it; return who had."""
        holder = self._holders.get(port)
        self._hold(port, model)
        return NO_OBJECTS if holder is None else frozenset({holder})

    def _hold(self, port: int, model: ObjectRef) -> None:
        self._release(port)
        self._former.pop(model, None)
        self._holders[port] = model
        # All models are registered before the first is given a port: what they have was given before.
        was_given = isinstance(self._rule, AllocatedPorts) and self._rule.has(port) and self._fixed.get(model) != port
        if was_given and not self._gave_any:
            self._last_given = max(self._last_given, port)
        self._held[model.namespace] += 1
        self._kept.held(port, model.namespace)

    def _release(self, port: int) -> None:
        if holder := self._holders.pop(port, None):
            self._kept.released(port, holder.namespace)
            self._held[holder.namespace] -= 1
            if not self._held[holder.namespace]:
                del self._held[holder.namespace]

    def _remember(self, model: ObjectRef, port: int) -> None:
        """Remember who had a port, for a while: names are as many as anybody likes."""
        self._former[model] = port
        if len(self._former) > _MOST_FORMER:
            del self._former[next(iter(self._former))]

    def _next_within_quota(self, namespace: str) -> frozenset[ObjectRef]:
        """Return who may have a port, if its namespace has room: one, whose turn brings that of the next."""
        waiting = self._beyond_quota.get(namespace)
        if not waiting:
            self._beyond_quota.pop(namespace, None)
            return NO_OBJECTS
        has_room = isinstance(self._rule, AllocatedPorts) and self._has_room(namespace, self._rule)
        return frozenset({next(iter(waiting))}) if has_room else NO_OBJECTS

    def _replaced(self, ports: dict[ObjectRef, int], model: ObjectRef, port: int | None) -> int | None:
        before = ports.pop(model, None)
        if port is not None:
            ports[model] = port
        return before

    def _free(self, model: ObjectRef, port: int | None) -> frozenset[ObjectRef]:
        """Free a port that a model had, unless it still has it; return who of those who wait for it is told first."""
        if (
            port is None
            or not self.owns(model, port)
            or port in (self._in_status.get(model), self._allocated_ports.get(model))
            or (self.for_life and port == self._fixed.get(model))
        ):
            return NO_OBJECTS
        self._release(port)
        if isinstance(self._rule, AllocatedPorts):
            self._remember(model, port)
        return self._waiting.freed([port])
