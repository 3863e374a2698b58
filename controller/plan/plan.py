"""`plan`: from what is known of one object to what shall be written. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import Route, Shares
from controller.api.contract.status import Condition, ModelDeploymentStatus, is_withdrawn, with_transitions
from controller.api.kubernetes.endpoints import staying
from controller.api.resources.model import FRONTEND, TAKEOVER
from controller.decision import Decision, Facts, LocalFacts, RemoteFacts, decide
from controller.decision.facts import NOT_CHECKED
from controller.decision.signals import compared
from controller.frontend.claims import Refusal
from controller.intent.intent import Intent, Terms
from controller.observe.observation import Observation
from controller.observe.proxies import Programmed
from controller.observe.references import Fault, Front
from controller.plan.conditions import Findings, conditions_for, late_at, refused_conditions
from controller.plan.signals import AVAILABLE, availability, ready_since, signal_statuses, turns_at
from controller.plan.status import (
    Healths,
    detour_status,
    local_status,
    remote_status,
    split_status,
    traffic_status,
    verdict_statuses,
    with_decision,
)
from controller.plan.whereabouts import DecidedSplit, Whereabouts, whereabouts
from controller.runtime.writes import Verb, Write
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Precondition

_NO_PROXIES = Programmed(connected=0, programmed=0)


@dataclass(frozen=True, slots=True)
class Plan:
    """What shall be of one object: the status that it shall have, and the decision which that carries, if any.

    `stored` and `before` are what it was planned from. `settles_at` is when more follows from where requests went.
    """

    stored: StoredObject
    before: ModelDeploymentStatus
    status: ModelDeploymentStatus
    decision: Decision | None
    settles_at: datetime | None = None

    @property
    def ref(self) -> ObjectRef:
        """Which object it is about."""
        return self.stored.ref

    @property
    def wake_at(self) -> datetime | None:
        """When to look again, with nothing else changing: the decision may be another, an edit late, a metric gone for
        long enough.
        """
        late = late_at(self.status.condition("Ready"))
        # Of an object that cannot be read all stays as it is, whatever was due.
        turns = turns_at(self.status) if self.decision else None
        times = (self.decision and self.decision.wake_at, late, turns, self.settles_at)
        return min((at for at in times if at), default=None)

    @property
    def writes(self) -> tuple[Write, ...]:
        """What makes it so, in this order: the status is the last, for it says that all else is done."""
        unwritten = Precondition(resource_version=self.stored.resource_version)
        return (Write(Verb.PATCH_STATUS, self.ref, self.status.as_object(), unwritten),)


def plan(observation: Observation, now: datetime) -> Plan:
    """Decide on one object and describe it; `now` is UTC."""
    if observation.intent is None:
        return _plan_for_unreadable(observation, now)
    return _plan_for(observation, observation.intent, now)


def _plan_for(observation: Observation, intent: Intent, now: datetime) -> Plan:
    before, front, terms = observation.before, observation.front, intent.terms
    healths = _healths(observation, terms)
    unusable = _unusable(healths.values())
    facts = _facts(observation, healths, (*observation.faults, *unusable))
    # In Shadow nothing is amiss for want of what nothing needs yet.
    faults = (*observation.faults, *(unusable if terms.may_leave else ()))
    memory, decision, route = observation.memory, None, None
    if front:
        decision, memory = decide(terms, facts, memory, now)
        route = _route(observation, intent, front, decision)
    programmed = _programmed(observation, route)
    is_as_before = _without_shares(before.route) == _without_shares(route)
    faults = (*faults, *_entrance_faults(observation, route, is_as_before=is_as_before))
    ready_before = before.condition("Ready")
    late = late_at(ready_before)
    is_late = late is not None and now >= late
    told = Whereabouts()
    if decision:
        since = memory.split_since if memory.split_since == observation.memory.split_since else None
        is_edited = not is_as_before or (late is not None and not is_late)
        told = whereabouts(DecidedSplit(intent, facts, decision, programmed, since, is_edited), before, now)
    found = told.detour or told.overflow
    signals = signal_statuses(facts.signals, before.signals or (), now)
    serves_since = min(ready_since(before) or now, now) if facts.local.ready else None
    findings = Findings(
        generation=observation.generation,
        warnings=(*map(str, (*intent.faults, *intent.warnings)), *observation.warnings),
        refusal=observation.refusal,
        faults=faults,
        terms=terms,
        facts=facts,
        decision=decision,
        programmed=programmed,
        programmed_before=_programmed_before(before, observation.generation) if is_as_before else None,
        ready_before=ready_before,
        edit_is_late=is_late,
        silence=observation.silence,
        detour=told.detour,
        overflow=told.overflow,
        undecided=told.undecided,
        uncounted=observation.uncounted_endpoints,
        fronting=observation.fronting,
        signals=availability(signals, before.condition(AVAILABLE), serves_since, now),
    )
    status = ModelDeploymentStatus(
        controller=observation.controller or None,
        observed_generation=observation.generation,
        conditions=with_transitions(conditions_for(findings), before.conditions, now),
        serving_port=front.port if front else observation.reserved,
        frontend=_frontend(observation) if front else None,
        takeover=observation.fronting.takeover if observation.fronting else None,
        split=split_status(decision, memory, found, now) if decision else None,
        verdicts=verdict_statuses(decision, before.verdicts or ()) if decision else None,
        local=local_status(facts.local, terms, may_leave=bool(facts.remotes)),
        remote=remote_status(observation.remotes, healths),
        signals=signals or None,
        traffic=traffic_status(facts.traffic, now),
        detour=detour_status(found) if decision else None,
        route=route,
        memory=memory.model_dump(mode="json", by_alias=True, exclude_none=True),
        history=with_decision(before.history, decision, now) if decision else before.history,
    )
    return Plan(observation.stored, before, _noting_withdrawal(status, observation), decision, told.settles_at)


def _plan_for_unreadable(observation: Observation, now: datetime) -> Plan:
    """Describe an object that cannot be read: all that is known of it stays, and it says so.

    Its last good route stays too, unless it may no longer be served.
    """
    before, mistakes = observation.before, "; ".join(map(str, observation.errors))
    if observation.refusal:
        refusal = Refusal(observation.refusal.reason, f"{observation.refusal.message}; {mistakes}")
        remaining = before.model_copy(update={"route": None, "split": None, "verdicts": None, "takeover": None})
    else:
        refusal, remaining = Refusal("Invalid", mistakes), before
    conditions = refused_conditions(before.conditions, refusal, observation.generation)
    status = remaining.model_copy(
        update={
            "controller": observation.controller or None,
            "observed_generation": observation.generation,
            "conditions": with_transitions(conditions, before.conditions, now),
        }
    )
    return Plan(observation.stored, before, _noting_withdrawal(status, observation), None)


def _frontend(observation: Observation) -> str:
    """Say how clients reach the model now."""
    return TAKEOVER if observation.fronting and observation.fronting.is_taken_over else FRONTEND


def _noting_withdrawal(status: ModelDeploymentStatus, observation: Observation) -> ModelDeploymentStatus:
    """Note in a status without a route that the route was taken away, now or before.

    Why it has none may change, and whoever serves the route may see only the last of several statuses.
    """
    withdrawn = status.route is None and any(map(is_withdrawn, (observation.stored.status, status.as_object())))
    return status.model_copy(update={"withdrawn": withdrawn or None})


def _healths(observation: Observation, terms: Terms) -> Healths:
    """Say what is known of the remote backends; in Shadow, in which nobody checks them, that they cannot be used."""
    if not terms.enabled:
        return {}
    if terms.may_leave:
        return {one.name: observation.health_of(one) for one in observation.remotes}
    # As the xDS servers read it from the object, which does not tell that it is behind this very gateway.
    asked_for = (one.model_copy(update={"through_gateway": None}) for one in observation.remotes)
    found = ((one.name, observation.health_of(one)) for one in asked_for)
    return {name: health for name, health in found if health and not health.usable}


def _unusable(healths: Iterable[RemoteHealth | None]) -> tuple[Fault, ...]:
    """Say which remote backends cannot be used for want of what their servers know alone, such as a credential."""
    unusable = (Fault(one.reason, one.message, of_remote=True) for one in healths if one and not one.usable)
    return tuple(dict.fromkeys(unusable))


def _entrance_faults(observation: Observation, route: Route | None, *, is_as_before: bool) -> tuple[Fault, ...]:
    """Say what is wrong with what clients are met with, such as a certificate: the xDS servers alone know it.

    Until they have looked at a new split, what they said of the one before holds: it `is_as_before` but for that.
    """
    before, proxies = observation.before.route, observation.proxies
    routes = [route, before] if is_as_before and before != route else [route]
    found = (one for each in routes if each and proxies for one in proxies.entrance_faults(each))
    return tuple(dict.fromkeys(Fault(one.reason, one.message) for one in found))


def _facts(observation: Observation, healths: Healths, faults: tuple[Fault, ...]) -> Facts:
    replicas = observation.front.replicas if observation.front else ()
    total = len(staying(replicas))
    local = LocalFacts(ready=sum(replica.ready for replica in replicas), total=total, leaving=len(replicas) - total)
    remotes = (RemoteFacts(one.name, healths.get(one.name) or NOT_CHECKED) for one in observation.remotes)
    why = "; ".join(fault.message for fault in faults if fault.of_remote)
    return Facts(
        local=local,
        remotes=tuple(one for one in remotes if one.health.usable),
        no_remote=why or "spec.offloadingConfig is not set",
        signals=compared(observation.samples, local.ready),
        traffic=observation.traffic,
    )


def _route(observation: Observation, intent: Intent, front: Front, decision: Decision) -> Route:
    return Route(
        port=front.port,
        shares=decision.shares,
        local=front.local,
        remotes=observation.remotes if intent.terms.may_leave else (),
        hosts=front.hosts,
        rate_limits=intent.rate_limits,
        # Clients of a Service that is taken over speak no TLS: it begins once they were led back to its pods.
        tls=None if front.local.fronted else intent.tls,
        jwt=() if front.local.fronted else intent.jwt,
    )


def _programmed(observation: Observation, route: Route | None) -> Programmed | None:
    """Say what became of this route at the Envoys; None while reports are missing."""
    if route is None:
        return _NO_PROXIES
    return observation.proxies.programmed(route) if observation.proxies else None


def _programmed_before(before: ModelDeploymentStatus, generation: int) -> Condition | None:
    """Return what was said of this generation; a change of the shares makes no other route of it."""
    said = (one for one in before.conditions if one.type == "Programmed" and one.observed_generation == generation)
    return next(said, None)


def _without_shares(route: Route | None) -> Route | None:
    return route and route.with_shares(Shares(local=100))
