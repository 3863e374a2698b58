"""What only one model may have, whatever port it is served on: a port of a Service, a name in its environment, and the
hosts by which clients call it.

Of several that ask for the port of a Service, those in its own namespace go before all others: nobody elsewhere takes a
Service from those who own it (docs/adr/0040). Among equals the oldest wins (`creationTimestamp`, then namespace and
name), whoever had it before: so every controller, also one that just started, sees the same winner. A model asks for
what its spec names, and also for what it serves, so that nothing is served twice while it moves. Who may not refer to a
Service asks for nothing of it.

What becomes of who loses:

* It says so in `Accepted=False/Conflict`, with the winner and the field. One that was never served is not served.
* Who loses the port of a Service that it serves loses its route: the winner serves it from now on.
* Who loses what it does not serve yet keeps what it serves: an edit that asks for what is another's, or an older
  object that takes over a mere name, is a mistake to report, and no reason to fail requests.
* Who loses a host is served on its port and by its other hosts, and says nothing: another port of the Service has the
  better right to the name.
* Once the winner goes, or asks for something else, the next one wins at once.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from controller.api.contract.route import SERVICE_HOST
from controller.frontend.claimants import Claimants
from controller.runtime.line import WaitingLine
from controller.store.objects import ObjectRef


class Seniority(NamedTuple):
    """The order of models by age: the smaller is the older, and wins."""

    created: str
    namespace: str
    name: str


class Precedence(NamedTuple):
    """The order of those who claim one thing: the smaller wins.

    `rank` is the right that the claim itself gives, `foreign` are those of another namespace.
    """

    rank: int
    foreign: bool
    age: Seniority


@dataclass(frozen=True, slots=True)
class ServicePortClaim:
    """One port of a Service, by the port's name (empty for an unnamed one, which is then the only one)."""

    namespace: str
    service: str
    port_name: str
    number: int | None = field(default=None, compare=False)

    field_name = "spec.serviceRef"
    rank = 0

    def __str__(self) -> str:
        port = f"port {self.number or self.port_name}" if self.number or self.port_name else "the port"
        return f"{port} of Service {self.namespace}/{self.service}"


@dataclass(frozen=True, slots=True)
class ModelClaim:
    """The name of a model in its environment, as the platform and the users of a namespace know it."""

    namespace: str
    environment: str
    model: str

    field_name = "spec.model"
    rank = 0

    def __str__(self) -> str:
        return f'model "{self.model}" of environment "{self.environment}"'


HTTP_PORT = 80
"""The port of a host that names none (RFC 9110, section 4.2.1)."""


@dataclass(frozen=True, slots=True)
class HostClaim:
    """A host, `SERVICE.NAMESPACE` or `SERVICE.NAMESPACE:PORT`, by which clients call a model.

    Without a port it is that of the Service's port 80 (`rank` 0). If no model has that, the oldest one has it that has
    any port of the Service.
    """

    host: str
    namespace: str
    rank: int = field(default=0, compare=False)


def hosts_of(namespace: str, service: str, number: int) -> tuple[HostClaim, ...]:
    """List the hosts that the model of one port of a Service asks for; none if its name can stand in no host.

    That is a name which no cluster would accept, and a folder may have.
    """
    host, rank = f"{service}.{namespace}", 0 if number == HTTP_PORT else 1
    try:
        SERVICE_HOST.check(host)
    except ValueError:
        return ()
    return HostClaim(host, namespace, rank), HostClaim(f"{host}:{number}", namespace)


Claim = ServicePortClaim | ModelClaim
"""What an object cannot be served without."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an object is not accepted as it is: the reason of its condition `Accepted`, and a sentence."""

    reason: Literal["Invalid", "Conflict", "NoPort", "RefNotPermitted"]
    message: str


class Claims:
    """Which models ask for what, and who wins it.

    However many ask for one thing, to ask for it, to give it up and to see who has it costs no more than a search among
    them. Losers are told apart, since for them nothing but the name of the winner is another.
    """

    def __init__(self) -> None:
        self._claimants: dict[Claim | HostClaim, Claimants[Precedence]] = {}
        self._claims_of: dict[ObjectRef, frozenset[Claim | HostClaim]] = {}
        # What others have now, and some of the losers did not hear of; namespaces take turns.
        self._untold: WaitingLine[Claim | HostClaim] = WaitingLine(operator.attrgetter("namespace"))

    def claim(self, model: ObjectRef, created: str, claims: Iterable[Claim | HostClaim]) -> frozenset[ObjectRef]:
        """Claim these, and no longer what was claimed before.

        Returns the other models to look at again soon: of what has another winner now, that one and the one before.
        Those who lost it before and lose it still come one by one from `next_to_tell`.
        """
        wanted, before = frozenset(claims), self._claims_of.get(model, frozenset())
        winners = {claim: self.winner(claim) for claim in wanted | before}
        for claim in before - wanted:
            self._claimants[claim].remove(model)
        age = Seniority(created, model.namespace, model.name)
        for claim in wanted:
            precedence = Precedence(claim.rank, claim.namespace != model.namespace, age)
            self._claimants.setdefault(claim, Claimants[Precedence]()).put(model, precedence)
        if wanted:
            self._claims_of[model] = wanted
        else:
            self._claims_of.pop(model, None)
        affected = {other for claim, winner in winners.items() for other in self._moved(claim, winner)}
        return frozenset(affected - {model})

    def _moved(self, claim: Claim | HostClaim, before: ObjectRef | None) -> set[ObjectRef]:
        """Return the winner of a thing and the one before, if it is another now; the losers are told of it."""
        winner = self.winner(claim)
        if winner is None:
            self._claimants.pop(claim, None)
            self._untold.discard(claim)
        if winner == before:
            return set()
        if winner is not None:
            self._claimants[claim].begin_telling()
            self._untold.add(claim)
        return {one for one in (winner, before) if one}

    def next_to_tell(self) -> ObjectRef | None:
        """Return the next model of those that lose what another has now, to be looked at again; None if all were."""
        while (claim := self._untold.take()) is not None:
            if told := self._claimants[claim].tell():
                self._untold.add(claim)
                return told
        return None

    @property
    def tells(self) -> bool:
        """Whether losers are to be told yet."""
        return bool(self._untold)

    def winner(self, claim: Claim | HostClaim) -> ObjectRef | None:
        """Say who has a thing, if anybody asks for it."""
        claimants = self._claimants.get(claim)
        return claimants.winner if claimants else None
