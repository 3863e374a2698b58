"""Reconcile one ModelDeployment: pure, from what is known to the status it shall have."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from controller.api.base import InvalidObjectError, parse
from controller.api.conditions import with_transitions
from controller.api.model import ModelDeployment
from controller.api.route import ModelRoute, Split
from controller.api.status import (
    HISTORY_LENGTH,
    HistoryEntry,
    LocalStatus,
    ModelDeploymentStatus,
    RemoteStatus,
    SplitStatus,
)
from controller.decision import Decision, Facts, Known, LocalFacts, Memory, decide, terms_for
from controller.reconcile.conditions import Observation, conditions_for
from controller.reconcile.proxies import NO_PROXIES, ProxyReports
from controller.reconcile.resolve import Resolved
from controller.store.objects import StoredObject


@dataclass(frozen=True, slots=True)
class Subject:
    """One model at the moment of its reconciliation.

    `resolved.front` is what it fronts now: what its references lead to or, when those cannot be followed or the port is
    another's (`conflict` says whose), what it fronted before. A mistake is reported and breaks nothing.
    """

    stored: StoredObject
    model: ModelDeployment
    resolved: Resolved
    conflict: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """The status to write, and the decision it carries: none while the model fronts nothing."""

    status: ModelDeploymentStatus
    decision: Decision | None


def reconcile(subject: Subject, proxies: ProxyReports, now: datetime) -> Outcome:
    """Decide on one model and describe it; `now` is UTC."""
    stored, resolved, front = subject.stored, subject.resolved, subject.resolved.front
    before = previous_status(stored)
    terms, warnings = terms_for(subject.model, can_leave=resolved.remote is not None)
    replicas = front.replicas if front else ()
    facts = Facts(local=LocalFacts(ready=sum(replica.ready for replica in replicas), total=len(replicas)))
    memory, decision, route = _memory(before), None, None
    if front:
        decision, memory = decide(terms, facts, memory, now)
        remote = resolved.remote if terms.enabled else None
        route = ModelRoute(port=front.port, split=decision.split, local=front.local, remote=remote)
    seen = Observation(
        generation=stored.generation,
        warnings=tuple(map(str, warnings)),
        conflict=subject.conflict,
        resolved=resolved,
        terms=terms,
        facts=facts,
        decision=decision,
        proxies=proxies.report(stored.ref, route) if route else NO_PROXIES,
        programmed_before=_but_for_the_split(before.route) == _but_for_the_split(route)
        and any(
            (one.type, one.status, one.observed_generation) == ("Programmed", "True", stored.generation)
            for one in before.conditions
        ),
    )
    status = ModelDeploymentStatus(
        observed_generation=stored.generation,
        conditions=with_transitions(conditions_for(seen), before.conditions, now),
        serving_port=front.port if front else None,
        split=_split_status(decision, memory, now) if decision else None,
        local=LocalStatus(ready=facts.local.ready, total=facts.local.total),
        remote=_remote_status(resolved, facts),
        route=route,
        memory=memory.model_dump(mode="json", by_alias=True, exclude_none=True),
        history=_history(before, decision, now) if decision else before.history,
    )
    return Outcome(status, decision)


def previous_status(stored: StoredObject) -> ModelDeploymentStatus:
    """Read the status back; one that another version wrote, or somebody's hand, counts as none."""
    try:
        return parse(ModelDeploymentStatus, stored.status)
    except InvalidObjectError:
        return ModelDeploymentStatus()


def _but_for_the_split(route: ModelRoute | None) -> ModelRoute | None:
    return route and route.model_copy(update={"split": Split.away(0)})


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


def _remote_status(resolved: Resolved, facts: Facts) -> RemoteStatus | None:
    if resolved.remote is None:
        return None
    healthy = facts.remote.value.healthy if isinstance(facts.remote, Known) else None
    return RemoteStatus(host=resolved.remote.authority, healthy=healthy)


def _history(before: ModelDeploymentStatus, decision: Decision, now: datetime) -> tuple[HistoryEntry, ...]:
    """Add what was decided, newest first. Steps with one reason are one entry: the last of them."""
    latest = before.history[0] if before.history else None
    if latest and (latest.reason, latest.split) == (decision.reason, str(decision.split)):
        return before.history
    earlier = before.history[1:] if latest and latest.reason == decision.reason else before.history
    entry = HistoryEntry(at=now, split=str(decision.split), reason=decision.reason, message=decision.message)
    return (entry, *earlier)[:HISTORY_LENGTH]
