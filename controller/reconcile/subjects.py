"""What each model has to itself, and what it fronts by that: references, claims and ports brought together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from controller.api.contract.route import LocalBackend
from controller.api.kubernetes.endpoints import EndpointGuard
from controller.api.resources.backend import RemoteBackend
from controller.api.resources.model import ModelDeployment
from controller.frontend.claims import Claim, Claims, ModelClaim, Refusal, Seniority, ServicePortClaim
from controller.frontend.ports import GatewayPorts, PortRule
from controller.observe.index import Seen, World
from controller.observe.references import claimed_port, kept_front, resolve, service_ref, workload_ref
from controller.plan.model import Subject
from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class Defaults:
    """What holds for all models: the default remote backend, which endpoints count, and how ports are given."""

    remote: RemoteBackend | None
    guard: EndpointGuard
    ports: PortRule


class Subjects:
    """Follows the references of models, and lets each have what no other has.

    Every model that is new or changed is observed before any is made a subject: so nobody is given what another, not
    yet looked at, has already.
    """

    def __init__(self, world: World, defaults: Defaults) -> None:
        self._world = world
        self._defaults = defaults
        self._claims = Claims()
        self._ports = GatewayPorts(defaults.ports)

    def observe(self, ref: ObjectRef) -> frozenset[ObjectRef]:
        """Take in what a model refers to, asks for and has; return the other models to look at again."""
        seen = self._world.model(ref)
        if seen is None:
            self._world.refers(ref, ())
            return self._claims.ask(ref, "", ()) | self._ports.forget(ref)
        if seen.model:
            self._world.refers(ref, _references(seen, seen.model))
        route, age = seen.status.route, seniority(seen)
        says = route.port if route else self._reserved(seen)
        again = self._claims.ask(ref, age.created, self._asked(seen))
        return again | self._ports.observe(ref, age, says)

    def subject(self, seen: Seen, model: ModelDeployment) -> tuple[Subject, frozenset[ObjectRef]]:
        """Say what a model fronts; where its references lead nowhere or to another's, it stays with what it has.

        Returns with it the other models to look at again.
        """
        ref, route = seen.stored.ref, seen.status.route
        resolved = resolve(model, self._world, self._defaults.remote, self._defaults.guard)
        wanted = resolved.front
        asked: list[Claim] = [_name(model)]
        if wanted:
            asked.append(replace(_port_of(wanted.local), number=wanted.service_port))
        refusal = self._lost(ref, asked)
        if refusal:
            wanted = None
        kept = route if route and not self._lost(ref, [_port_of(route.local)]) else None
        settled = self._ports.settle(ref, wanted.port if wanted else None, kept.port if kept else None)
        front = wanted if not settled.refusal else None
        if front is None and kept:
            front = kept_front(kept, self._world, self._defaults.guard)
        if front:
            front = replace(front, port=settled.port) if settled.port else None
        reserved = self._reserved(seen) if self._ports.has(ref, self._reserved(seen)) else None
        subject = Subject(seen.stored, model, replace(resolved, front=front), refusal or settled.refusal, reserved)
        return subject, settled.again

    def lost_route(self, seen: Seen) -> Refusal | None:
        """Say why a model that cannot be read may not even keep the route it has; None if it may."""
        ref, route = seen.stored.ref, seen.status.route
        if route is None:
            return None
        if not self._ports.has(ref, route.port):
            return Refusal("Conflict", f"port {route.port} is that of an older object")
        return self._lost(ref, [_port_of(route.local)])

    def _lost(self, ref: ObjectRef, claims: Iterable[Claim]) -> Refusal | None:
        for claim in claims:
            winner = self._claims.winner(claim)
            if winner not in (None, ref):
                return Refusal("Conflict", f"{claim.field_name}: {claim} is that of {winner}, which is older")
        return None

    def _asked(self, seen: Seen) -> Iterator[Claim]:
        """List what a model asks for: what its spec names, and what it is served by. One is there once."""
        if seen.model:
            yield _name(seen.model)
            if found := claimed_port(seen.model, self._world):
                service, port = found
                yield ServicePortClaim(service.namespace, service.name, port.name)
        if seen.status.route:
            yield _port_of(seen.status.route.local)

    def _reserved(self, seen: Seen) -> int | None:
        # A status without a generation is none of ours: the original wrote the port of the model's container there.
        is_ours = seen.status.observed_generation > 0
        return seen.status.serving_port if is_ours and self._ports.for_life else None


def seniority(seen: Seen) -> Seniority:
    """Say how old a model is."""
    return Seniority(str(seen.stored.metadata["creationTimestamp"]), seen.stored.ref.namespace, seen.stored.ref.name)


def _references(seen: Seen, model: ModelDeployment) -> Iterator[ObjectRef]:
    yield workload_ref(model)
    if service := service_ref(model):
        yield service
    if route := seen.status.route:
        yield ObjectRef("Service", route.local.namespace, route.local.service)


def _name(model: ModelDeployment) -> ModelClaim:
    return ModelClaim(model.metadata.namespace, model.spec.environment, model.spec.model)


def _port_of(local: LocalBackend) -> ServicePortClaim:
    return ServicePortClaim(local.namespace, local.service, local.port_name)
