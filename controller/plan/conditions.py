"""The conditions of a ModelDeployment, from what was found and decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from controller.api.contract.status import Condition
from controller.decision import Decision, Facts, Known, RemoteFacts, Terms
from controller.frontend.claims import Refusal
from controller.observe.proxies import ProxyReport
from controller.observe.references import Fault, Resolved

TYPES = (
    "Accepted",
    "ResolvedRefs",
    "Programmed",
    "LocalHealthy",
    "RemoteHealthy",
    "Offloading",
    "Paused",
    "Ready",
)

# The most that is said in one condition; who has more mistakes than fit sees the others once these are gone.
_LONGEST_MESSAGE = 4000


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that the conditions of one model tell.

    `proxies` is None while nothing was heard of the Envoys. `programmed_before` is what `Programmed` said last of this
    generation and of the same route but for the split, if it said anything.
    """

    generation: int
    warnings: tuple[str, ...]
    refusal: Refusal | None
    resolved: Resolved
    terms: Terms
    facts: Facts
    decision: Decision | None
    proxies: ProxyReport | None
    programmed_before: Condition | None


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
    return tuple(_condition(type_, answer, seen.generation) for type_, answer in found.items())


def refused_conditions(before: Iterable[Condition], refusal: Refusal, generation: int) -> tuple[Condition, ...]:
    """Build the conditions of an object that cannot be read: `Accepted` and `Ready` say so, the others stay."""
    found = {one.type: one for one in before}
    accepted = _Answer("False", refusal.reason, refusal.message)
    found["Accepted"] = _condition("Accepted", accepted, generation)
    found["Ready"] = _condition("Ready", _Answer("False", "NotAccepted", accepted.message), generation)
    return tuple(found[type_] for type_ in TYPES if type_ in found)


@dataclass(frozen=True, slots=True)
class _Answer:
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


def _condition(type_: str, answer: _Answer, generation: int) -> Condition:
    message = answer.message
    if len(message) > _LONGEST_MESSAGE:
        message = f"{message[:_LONGEST_MESSAGE]}..."
    return Condition(
        type=type_, status=answer.status, reason=answer.reason, message=message, observed_generation=generation
    )


def _flag(value: bool, yes: str, no: str, message: str) -> _Answer:
    return _Answer("True", yes, message) if value else _Answer("False", no, message)


def _accepted(seen: Observation) -> _Answer:
    if seen.refusal:
        return _Answer("False", seen.refusal.reason, seen.refusal.message)
    return _Answer("True", "AcceptedWithWarnings" if seen.warnings else "Accepted", "; ".join(seen.warnings))


def _resolved(faults: Iterable[Fault]) -> _Answer:
    first, *_ = (*faults, None)
    if first is None:
        return _Answer("True", "Resolved")
    return _Answer("False", first.reason, "; ".join(fault.message for fault in faults))


def _programmed(seen: Observation) -> _Answer:
    proxies, before = seen.proxies, seen.programmed_before
    if seen.decision is None:
        return _Answer("False", "NotServed", "there is no route to serve")
    if proxies is None:
        # A controller that just started has heard nothing yet: that takes nothing back.
        if before:
            return _Answer(before.status, before.reason, before.message)
        return _Answer("Unknown", "NotReported", "no xDS server has told yet what the Envoys acknowledged")
    if proxies.refusals:
        return _Answer("False", "Refused", "; ".join(proxies.refusals))
    if not proxies.connected:
        return _Answer("False", "NoProxies", "no Envoy is connected")
    # A change of the split is no new generation: it does not take back what was said of this one.
    if proxies.programmed < proxies.connected and not (before and before.status == "True"):
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
        case Known(RemoteFacts(healthy=healthy, detail=detail, reason=reason)):
            return _flag(healthy, reason or "Answering", reason or "NotAnswering", detail)
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
            # What is not known of the cause is not known of the effect.
            return _Answer("Unknown" if found[type_].status == "Unknown" else "False", reason, found[type_].message)
    if found["LocalHealthy"].status != "True":
        remote = found["RemoteHealthy"]
        if remote.reason == "NoRemote":
            words = "no local replica is ready, and there is no remote backend to go to"
            return _Answer("False", "NothingAnswers", words)
        if remote.status == "False":
            words = f"no local replica is ready, and the remote backend does not answer: {remote.message}"
            return _Answer("False", "NothingAnswers", words)
    return _Answer("True", "Ready")
