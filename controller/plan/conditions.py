"""The conditions of a ModelDeployment, from what was found and decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from controller.api.contract.status import Condition
from controller.decision import Decision, Facts, LocalFacts
from controller.frontend.claims import Refusal
from controller.intent.intent import Terms
from controller.observe.proxies import Programmed
from controller.observe.references import Fault

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
class Findings:
    """Everything that the conditions of one object tell.

    `programmed` is None while reports of the Envoys are missing. `programmed_before` is what the condition said last of
    this generation and of the same route but for the split, if it said anything.
    """

    generation: int
    warnings: tuple[str, ...]
    refusal: Refusal | None
    faults: tuple[Fault, ...]
    terms: Terms
    facts: Facts
    decision: Decision | None
    programmed: Programmed | None
    programmed_before: Condition | None


def conditions_for(findings: Findings) -> tuple[Condition, ...]:
    """Build every condition, in the order in which one depends on another."""
    paused = findings.terms.paused
    answers = {
        "Accepted": _accepted(findings),
        "ResolvedRefs": _resolved(findings.faults),
        "Programmed": _programmed(findings),
        "LocalHealthy": _local_healthy(findings.facts),
        "RemoteHealthy": _remote_healthy(findings),
        "Offloading": _offloading(findings.decision),
        "Paused": _flag(paused, "Paused", "NotPaused", "the split is held" if paused else ""),
    }
    answers["Ready"] = _ready(answers, findings.facts.local)
    return tuple(_condition(type_, answer, findings.generation) for type_, answer in answers.items())


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


def _accepted(findings: Findings) -> _Answer:
    if findings.refusal:
        return _Answer("False", findings.refusal.reason, findings.refusal.message)
    return _Answer("True", "AcceptedWithWarnings" if findings.warnings else "Accepted", "; ".join(findings.warnings))


def _resolved(faults: Iterable[Fault]) -> _Answer:
    first, *_ = (*faults, None)
    if first is None:
        return _Answer("True", "Resolved")
    return _Answer("False", first.reason, "; ".join(fault.message for fault in faults))


def _programmed(findings: Findings) -> _Answer:
    envoys, before = findings.programmed, findings.programmed_before
    if findings.decision is None:
        return _Answer("False", "NotServed", "there is no route to serve")
    if envoys is None:
        # A controller that just started has heard nothing yet: that takes nothing back.
        if before:
            return _Answer(before.status, before.reason, before.message)
        return _Answer("Unknown", "NotReported", "no xDS server has told yet what the Envoys acknowledged")
    if envoys.refusals:
        return _Answer("False", "Refused", "; ".join(envoys.refusals))
    if not envoys.connected:
        return _Answer("False", "NoProxies", "no Envoy is connected")
    # A change of the split is no new generation: it does not take back what was said of this one.
    if envoys.programmed < envoys.connected and not (before and before.status == "True"):
        return _Answer("False", "Pending", "not every connected Envoy has acknowledged this generation yet")
    return _Answer("True", "Programmed", "every connected Envoy has acknowledged this generation")


def _local_healthy(facts: Facts) -> _Answer:
    local = facts.local
    words = f"{local.ready} of {local.total} replicas are ready{_leaving(local)}"
    return _flag(local.ready > 0, "ReplicasReady", "NoReadyReplica", words)


def _leaving(local: LocalFacts) -> str:
    return f"; {local.leaving} more still answer while they terminate" if local.leaving and not local.ready else ""


def _remote_healthy(findings: Findings) -> _Answer:
    if not findings.facts.remotes or not findings.terms.enabled:
        return _Answer("Unknown", "NoRemote", "nothing may leave")
    health = findings.facts.remotes[0].health
    if health.healthy is None:
        return _Answer("Unknown", "NotMeasured", health.message)
    return _flag(health.healthy, health.reason or "Answering", health.reason or "NotAnswering", health.message)


def _offloading(decision: Decision | None) -> _Answer:
    if decision is None:
        return _Answer("Unknown", "NotServed", "there is nothing to decide on")
    return _flag(decision.split.remote > 0, decision.reason, decision.reason, decision.message)


def _ready(answers: dict[str, _Answer], local: LocalFacts) -> _Answer:
    """A model is ready when Envoy serves the route asked for, and some side can answer."""
    # In the order in which one is the cause of the next.
    causes = {"Accepted": "NotAccepted", "ResolvedRefs": "UnresolvedRefs", "Programmed": "NotProgrammed"}
    for type_, reason in causes.items():
        if answers[type_].status != "True":
            # What is not known of the cause is not known of the effect.
            return _Answer("Unknown" if answers[type_].status == "Unknown" else "False", reason, answers[type_].message)
    if answers["LocalHealthy"].status != "True" and not local.leaving:
        remote = answers["RemoteHealthy"]
        if remote.reason == "NoRemote":
            words = "no local replica is ready, and there is no remote backend to go to"
            return _Answer("False", "NothingAnswers", words)
        if remote.status == "False":
            words = f"no local replica is ready, and the remote backend does not answer: {remote.message}"
            return _Answer("False", "NothingAnswers", words)
    return _Answer("True", "Ready")
