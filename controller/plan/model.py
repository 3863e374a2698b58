"""Reconcile one ModelDeployment: pure, from what is known to the status it shall have."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime

from controller.api.contract.route import Remote, Route, Shares
from controller.api.contract.status import (
    Condition,
    LocalStatus,
    ModelDeploymentStatus,
    RemoteStatus,
    SplitStatus,
    with_transitions,
)
from controller.api.resources.acceptance import warnings_of
from controller.api.resources.model import ModelDeployment
from controller.api.schema.errors import FieldError, InvalidObjectError
from controller.api.schema.values import parse
from controller.decision import (
    Decision,
    Facts,
    Known,
    LocalFacts,
    Memory,
    RemoteFacts,
    Terms,
    Unknown,
    decide,
    terms_for,
)
from controller.frontend.claims import Refusal
from controller.observe.index import previous_status
from controller.observe.proxies import NO_PROXIES, ProxyReports
from controller.observe.references import Resolved
from controller.plan.conditions import Observation, conditions_for, refused_conditions
from controller.plan.history import with_decision
from controller.plan.signals import judged, requests_metrics
from controller.signals.load_reports import NO_LOAD, Load
from controller.store.objects import StoredObject

__all__ = ["Outcome", "Subject", "previous_status", "reconcile", "refused"]


@dataclass(frozen=True, slots=True)
class Subject:
    """One model at the moment of its reconciliation.

    `resolved.front` is what it fronts now: what its references lead to or, when those cannot be followed or it may not
    have that (`refusal` says why), what it fronted before, if it may keep that. A mistake is reported and breaks
    nothing. `reserved` is the port that it keeps while it fronts nothing.
    """

    stored: StoredObject
    model: ModelDeployment
    resolved: Resolved
    refusal: Refusal | None = None
    reserved: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The status to write, and the decision it carries: none while the model fronts nothing."""

    status: ModelDeploymentStatus
    decision: Decision | None


def reconcile(subject: Subject, proxies: ProxyReports, now: datetime, load: Known[Load] | Unknown = NO_LOAD) -> Outcome:
    """Decide on one model and describe it; `now` is UTC."""
    stored, resolved, front = subject.stored, subject.resolved, subject.resolved.front
    before = previous_status(stored)
    terms, unread = terms_for(subject.model, can_leave=resolved.remote is not None)
    replicas = front.replicas if front else ()
    facts = Facts(local=LocalFacts(ready=sum(replica.ready for replica in replicas), total=len(replicas)))
    if resolved.remote and terms.enabled:
        known = proxies.remote(stored.ref, resolved.remote) or _remote_before(before, resolved.remote)
        facts = replace(facts, remote=known or facts.remote)
    memory, decision, route = _memory(before), None, None
    if front:
        decision, memory = decide(terms, facts, memory, now)
        remote = resolved.remote if terms.enabled else None
        route = Route.between(port=front.port, split=decision.split, local=front.local, remote=remote)
    seen = Observation(
        generation=stored.generation,
        warnings=_warnings(subject.model, unread, resolved),
        refusal=subject.refusal,
        resolved=resolved,
        terms=terms,
        facts=facts,
        decision=decision,
        proxies=proxies.report(stored.ref, route) if route else NO_PROXIES,
        programmed_before=_programmed_before(before, stored.generation, route),
    )
    metrics = requests_metrics(subject.model)
    status = ModelDeploymentStatus(
        observed_generation=stored.generation,
        conditions=with_transitions(conditions_for(seen), before.conditions, now),
        serving_port=front.port if front else subject.reserved,
        split=_split_status(decision, memory, now) if decision else None,
        local=_local_status(facts, terms, resolved),
        remote=_remote_status(resolved, facts),
        signals=judged(metrics, load, facts.local.ready, before.signals or (), now) if metrics else None,
        route=route,
        memory=memory.model_dump(mode="json", by_alias=True, exclude_none=True),
        history=with_decision(before.history, decision, now) if decision else before.history,
    )
    return Outcome(status, decision)


def refused(stored: StoredObject, refusal: Refusal, *, is_served: bool, now: datetime) -> Outcome:
    """Describe an object that cannot be read: all that is known of it stays, and it says so.

    Its last good route stays too, unless it may no longer be served (`is_served`).
    """
    before = previous_status(stored)
    said = refused_conditions(before.conditions, refusal, stored.generation)
    kept = before if is_served else before.model_copy(update={"route": None, "split": None})
    status = kept.model_copy(
        update={
            "observed_generation": stored.generation,
            "conditions": with_transitions(said, before.conditions, now),
        }
    )
    return Outcome(status, None)


def _warnings(model: ModelDeployment, unread: Iterable[FieldError], resolved: Resolved) -> tuple[str, ...]:
    """Everything that is accepted and yet not as its author may think, each with its field."""
    return (*map(str, (*unread, *warnings_of(model))), *resolved.refused)


def _programmed_before(before: ModelDeploymentStatus, generation: int, route: Route | None) -> Condition | None:
    """What was said of this generation and of this route; a change of the split makes no other route of it."""
    if _but_for_the_split(before.route) != _but_for_the_split(route):
        return None
    said = (one for one in before.conditions if one.type == "Programmed" and one.observed_generation == generation)
    return next(said, None)


def _remote_before(before: ModelDeploymentStatus, remote: Remote) -> Known[RemoteFacts] | Unknown | None:
    """What was known of this very backend: a restart of who checks it, or of who is told, takes nothing back."""
    if before.route is None or before.route.remote != remote:
        return None
    for one in before.conditions:
        if one.type == "RemoteHealthy" and one.last_transition_time:
            if one.status == "Unknown":
                return Unknown(one.message)
            found = RemoteFacts(healthy=one.status == "True", detail=one.message, reason=one.reason)
            return Known(found, one.last_transition_time)
    return None


def _but_for_the_split(route: Route | None) -> Route | None:
    return route and route.with_shares(Shares(local=100))


def _memory(before: ModelDeploymentStatus) -> Memory:
    try:
        return parse(Memory, before.memory or {})
    except InvalidObjectError:
        return Memory()


def _split_status(decision: Decision, memory: Memory, now: datetime) -> SplitStatus:
    return SplitStatus(
        local=decision.split.local,
        remote=decision.split.remote,
        reason=decision.reason,
        message=decision.message,
        since=memory.split_since or now,
    )


def _local_status(facts: Facts, terms: Terms, resolved: Resolved) -> LocalStatus:
    local, each = facts.local, terms.max_requests_per_replica
    bounded = each is not None and terms.enabled and resolved.remote is not None
    return LocalStatus(ready=local.ready, total=local.total, capacity=each * local.ready if each and bounded else None)


def _remote_status(resolved: Resolved, facts: Facts) -> RemoteStatus | None:
    if resolved.remote is None:
        return None
    healthy = facts.remote.value.healthy if isinstance(facts.remote, Known) else None
    return RemoteStatus(host=resolved.remote.authority, healthy=healthy)
