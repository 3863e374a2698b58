"""What each object has to itself: its name, the port of a Service, and a port of the gateway. Pure.

Every object that is new or changed is registered before anything is allocated to any: so nobody is given what another,
not yet looked at, has already.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from controller.api.contract.route import LocalBackend, Route
from controller.frontend.claims import (
    HTTP_PORT,
    Claim,
    Claims,
    HostClaim,
    ModelClaim,
    Refusal,
    Seniority,
    ServicePortClaim,
)
from controller.frontend.ports import GatewayPorts, PortRule
from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class Request:
    """What an object asks for: its name, and (unless its references lead nowhere) a port to be served on.

    `fixed_port` is the one that its spec fixes, wherever its references lead. `hosts` are the names by which it asks to
    be called on the port that all models share: it is served without them, too.
    """

    name: ModelClaim
    service: ServicePortClaim | None = None
    port: int | None = None
    fixed_port: int | None = None
    hosts: tuple[HostClaim, ...] = ()

    @property
    def claims(self) -> tuple[Claim, ...]:
        """What of it only one object may have, and it cannot be served without, but for the port."""
        return (self.name, self.service) if self.service else (self.name,)


@dataclass(frozen=True, slots=True)
class Occupancy:
    """What an object has by its status: the port that it says, the port of a Service that it serves, and its hosts."""

    port: int | None = None
    service: ServicePortClaim | None = None
    hosts: tuple[HostClaim, ...] = ()

    @property
    def claims(self) -> tuple[Claim | HostClaim, ...]:
        """What of it only one object may have, but for the port of the gateway."""
        return (self.service, *self.hosts) if self.service else ()


@dataclass(frozen=True, slots=True)
class Allocation:
    """What an object gets.

    `port` is the one that it is served on, None if it is not served. `keeps_route` says that it goes on fronting what
    its present route says, since it may not have what it asks for, or its references lead nowhere. `refusal` says why
    not all that it asks for is its own, `reserved` is the port that it keeps while it is not served, `hosts` are the
    names by which it is called on the port that all models share, `affected` are other objects to look at again.
    """

    port: int | None
    keeps_route: bool
    refusal: Refusal | None
    reserved: int | None
    affected: frozenset[ObjectRef]
    hosts: tuple[str, ...] = ()


class Allocations:
    """Who has what, by the claims of all objects and by the ports that their statuses say."""

    def __init__(self, rule: PortRule) -> None:
        self._claims = Claims()
        self._ports = GatewayPorts(rule)
        self._requests: dict[ObjectRef, Request] = {}

    @property
    def ports_for_life(self) -> bool:
        """Whether an object keeps its port also while it is not served."""
        return self._ports.for_life

    def register(self, ref: ObjectRef, age: Seniority, request: Request | None, has: Occupancy) -> frozenset[ObjectRef]:
        """Record what an object asks for (None if it cannot be read) and has; return others to look at again."""
        self._requests.pop(ref, None)
        if request:
            self._requests[ref] = request
        # What it asks for comes first: of two equal claims, that is the newer one.
        claims = [*((*request.claims, *request.hosts) if request else ()), *has.claims]
        fixed = request.fixed_port if request else None
        return self._claims.claim(ref, age.created, claims) | self._ports.record(ref, age, has.port, fixed)

    @property
    def tells(self) -> bool:
        """Whether there are objects to be told that another one has now what they lose, or that a port became free."""
        return self._claims.tells or self._ports.tells

    def next_to_tell(self) -> ObjectRef | None:
        """Return the next of them, to be looked at again; None if all were."""
        return self._claims.next_to_tell() or self._ports.next_to_tell()

    def keep(self, service: ObjectRef, ports: frozenset[int]) -> frozenset[ObjectRef]:
        """Keep the ports of the gateway that a Service leads clients to for its namespace; return others to look at."""
        return self._ports.keep(service, ports)

    def reserve(self, ports: frozenset[int]) -> frozenset[ObjectRef]:
        """Give no object these ports of the gateway; return those that had one."""
        return self._ports.reserve(ports)

    def forget(self, ref: ObjectRef) -> frozenset[ObjectRef]:
        """Free all that an object had; return others to look at again."""
        self._requests.pop(ref, None)
        return self._claims.claim(ref, "", ()) | self._ports.forget(ref)

    def allocate(self, ref: ObjectRef, request: Request, route: Route | None, reserved: int | None) -> Allocation:
        """Give an object what it asks for, or else what its present route says, if it may have that.

        `reserved` is the port that its status says it keeps for life.
        """
        refusal = self._lost(ref, request.claims)
        wanted = None if refusal else request.port
        keepable = route if route and not self._lost(ref, [claim_of(route.local)]) else None
        ports = self._ports.allocate(ref, wanted, keepable.port if keepable else None, self._wanted)
        is_wanted = wanted is not None and not ports.refusal
        is_served = ports.port is not None and (is_wanted or keepable is not None)
        hosts = self._won(ref, request.hosts) if is_wanted else self.hosts_of(ref, route) if route else ()
        kept_for_life = (request.fixed_port, reserved) if self.ports_for_life else ()
        return Allocation(
            port=ports.port if is_served else None,
            keeps_route=is_served and not is_wanted,
            refusal=refusal or ports.refusal,
            reserved=next((port for port in kept_for_life if self._ports.owns(ref, port)), None),
            affected=ports.affected,
            hosts=hosts if is_served else (),
        )

    def has_port(self, ref: ObjectRef, port: int) -> bool:
        """Say whether a port is an object's, also one that it is about to leave."""
        return self._ports.owns(ref, port)

    def hosts_of(self, ref: ObjectRef, route: Route) -> tuple[str, ...]:
        """Return those of the hosts of its route that an object still has."""
        return self._won(ref, hosts_of_route(route))

    def _won(self, ref: ObjectRef, hosts: Iterable[HostClaim]) -> tuple[str, ...]:
        return tuple(one.host for one in hosts if self._claims.winner(one) == ref)

    def lost_route(self, ref: ObjectRef, route: Route) -> Refusal | None:
        """Say why an object that cannot be read may not even keep the route it has; None if it may."""
        if not self._ports.owns(ref, route.port):
            return Refusal("Conflict", f"port {route.port} is that of an older object, or of a program of ours")
        return self._lost(ref, [claim_of(route.local)])

    def _wanted(self, ref: ObjectRef) -> int | None:
        """Return the port that an object asks for, if it may have all that it asks for besides."""
        request = self._requests.get(ref)
        return request.port if request and not self._lost(ref, request.claims) else None

    def _lost(self, ref: ObjectRef, claims: Iterable[Claim]) -> Refusal | None:
        for claim in claims:
            winner = self._claims.winner(claim)
            if winner is not None and winner != ref:
                words = f"{claim.field_name}: {claim} is that of {winner}, which is {_before(winner, ref, claim)}"
                return Refusal("Conflict", words)
        return None


def _before(winner: ObjectRef, loser: ObjectRef, claim: Claim) -> str:
    """Say why one goes before the other."""
    is_at_home = winner.namespace == claim.namespace != loser.namespace
    return "in the namespace of the Service" if is_at_home else "older"


def claim_of(local: LocalBackend) -> ServicePortClaim:
    """Return what an object claims by being served: the port of the Service behind it."""
    return ServicePortClaim(local.namespace, local.clients_service, local.port_name)


def hosts_of_route(route: Route) -> tuple[HostClaim, ...]:
    """Return what an object claims by being called by the hosts of its route."""
    numbers = [host.partition(":")[2] for host in route.hosts]
    rank = int(any(number not in ("", str(HTTP_PORT)) for number in numbers))
    return tuple(
        HostClaim(host, route.local.namespace, 0 if number else rank)
        for host, number in zip(route.hosts, numbers, strict=True)
    )
