"""The conditions of a ModelDeployment, from what was found and decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from controller.api.conditions import Condition
from controller.decision import Decision, Facts, Known, RemoteFacts, Terms
from controller.reconcile.proxies import ProxyReport
from controller.reconcile.resolve import Fault, Resolved


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that the conditions of one model tell.

    `programmed_before` says that every Envoy had acknowledged this generation and the same route but for the split.
    """

    generation: int
    warnings: tuple[str, ...]
    conflict: str | None
    resolved: Resolved
    terms: Terms
    facts: Facts
    decision: Decision | None
    proxies: ProxyReport
    programmed_before: bool


def conditions_for(seen: Observation) -> tuple[Condition, ...]:
    """Build every condition, in the order in which one depends on another."""
    found = {
        "Accepted": _accepted(seen),
        "ResolvedRefs": _resolved(seen.resolved.faults),
        "Programmed": _programmed(seen),
        "LocalHealthy": _local_healthy(seen.facts),
        "RemoteHealthy": _remote_healthy(seen),
        "Offloading": _offloading(seen.decision),
        "Paused": _flag(seen.terms.paused, "Paused", "NotPaused", "the split is held" if seen.terms.paused else ""),
    }
    found["Ready"] = _ready(found)
    return tuple(
        Condition(
            type=type_,
            status=answer.status,
            reason=answer.reason,
            message=answer.message,
            observed_generation=seen.generation,
        )
        for type_, answer in found.items()
    )


@dataclass(frozen=True, slots=True)
class _Answer:
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


def _flag(value: bool, yes: str, no: str, message: str) -> _Answer:
    return _Answer("True", yes, message) if value else _Answer("False", no, message)


def _accepted(seen: Observation) -> _Answer:
    if seen.conflict:
        return _Answer("False", "Conflict", seen.conflict)
    return _Answer("True", "AcceptedWithWarnings" if seen.warnings else "Accepted", "; ".join(seen.warnings))


def _resolved(faults: Iterable[Fault]) -> _Answer:
    first, *_ = (*faults, None)
    if first is None:
        return _Answer("True", "Resolved")
    return _Answer("False", first.reason, "; ".join(fault.message for fault in faults))


def _programmed(seen: Observation) -> _Answer:
    proxies = seen.proxies
    if seen.decision is None:
        return _Answer("False", "NotServed", "there is no route to serve")
    if proxies.refusals:
        return _Answer("False", "Refused", "; ".join(proxies.refusals))
    if not proxies.connected:
        return _Answer("False", "NoProxies", "no Envoy is connected")
    # A change of the split is no new generation: it does not take back what was said of this one.
    if proxies.programmed < proxies.connected and not seen.programmed_before:
        return _Answer("False", "Pending", "not every connected Envoy has acknowledged this generation yet")
    return _Answer("True", "Programmed", "every connected Envoy has acknowledged this generation")


def _local_healthy(facts: Facts) -> _Answer:
    local = facts.local
    words = f"{local.ready} of {local.total} replicas are ready"
    return _flag(local.ready > 0, "ReplicasReady", "NoReadyReplica", words)


def _remote_healthy(seen: Observation) -> _Answer:
    if seen.resolved.remote is None or not seen.terms.enabled:
        return _Answer("Unknown", "NoRemote", "nothing may leave")
    match seen.facts.remote:
        case Known(RemoteFacts(healthy=healthy, detail=detail)):
            return _flag(healthy, "Answering", "NotAnswering", detail)
        case unknown:
            return _Answer("Unknown", "NotMeasured", unknown.why)


def _offloading(decision: Decision | None) -> _Answer:
    if decision is None:
        return _Answer("Unknown", "NotServed", "there is nothing to decide on")
    return _flag(decision.split.remote > 0, decision.reason, decision.reason, decision.message)


def _ready(found: dict[str, _Answer]) -> _Answer:
    """A model is ready when Envoy serves the route asked for, and some side can answer."""
    # In the order in which one is the cause of the next.
    causes = {"Accepted": "NotAccepted", "ResolvedRefs": "UnresolvedRefs", "Programmed": "NotProgrammed"}
    for type_, reason in causes.items():
        if found[type_].status != "True":
            return _Answer("False", reason, found[type_].message)
    if found["LocalHealthy"].status != "True" and found["RemoteHealthy"].reason in ("NoRemote", "NotAnswering"):
        return _Answer("False", "NothingAnswers", "no local replica is ready, and there is no remote backend to go to")
    return _Answer("True", "Ready")
