"""The conditions of a ModelDeployment, from what was found and decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from controller.api.contract.health import HOST_REFUSED
from controller.api.contract.status import Condition
from controller.decision import Decision, Detour, Facts, LocalFacts
from controller.decision.detours import OVERFLOW
from controller.frontend.claims import Refusal
from controller.intent.intent import Terms
from controller.observe.fronting import Fronting
from controller.observe.proxies import Programmed
from controller.observe.references import Fault
from controller.plan.signals import AVAILABLE, Availability
from controller.plan.status import is_shared, with_detour

TYPES = (
    "Accepted",
    "ResolvedRefs",
    "Programmed",
    "LocalHealthy",
    "RemoteHealthy",
    AVAILABLE,
    "Offloading",
    "FailingOver",
    "Paused",
    "Fronted",
    "Ready",
)

FAILOVER = "Failover"
BY_ENVOY = (FAILOVER, OVERFLOW)
"""Why requests leave that were not decided to: replicas fail them, or have no room."""

UPDATING = "Updating"
"""Why a model that was ready is not: an edit is on its way to the Envoys."""

BEHIND = "EnvoysBehind"
"""Why it is not known whether requests go where they shall: some Envoys may still follow the split before."""

UPDATES_WITHIN = timedelta(seconds=30)
"""How long an edit is on its way, at most: Envoys take far less, also to wait for what a cluster needs (15 s). One that
says nothing for longer may be stopped, and serve nothing.
"""

_NO_PROXIES = "no Envoy is connected; one without the node token of the xDS server does not count"

# The most that is said in one condition; who has more mistakes than fit sees the others once these are gone.
_LONGEST_MESSAGE = 4000


@dataclass(frozen=True, slots=True)
class Findings:
    """Everything that the conditions of one object tell.

    `programmed` is None while reports of the Envoys are missing. `programmed_before` is what the condition said last of
    this generation and of the same route but for the split, if it said anything. `ready_before` is what Ready was last;
    `edit_is_late` that it has been `Updating` for longer than that may take.
    `silence` says why reports are missing, as far as that is known. `detour` is None when requests go where the split
    sends them, `overflow` when none leave for want of room; `uncounted` are sentences on what is there and is no
    replica. `fronting` says how clients of the Service reach the model; None where no Service is ever taken over.
    `signals` says whether the metrics can be read; None for an object without any.
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
    ready_before: Condition | None = None
    edit_is_late: bool = False
    silence: str = ""
    detour: Detour | None = None
    overflow: Detour | None = None
    undecided: str = ""
    uncounted: tuple[str, ...] = ()
    fronting: Fronting | None = None
    signals: Availability | None = None


def conditions_for(findings: Findings) -> tuple[Condition, ...]:
    """Build every condition, in the order in which one depends on another."""
    paused = findings.terms.paused
    answers = {
        "Accepted": _accepted(findings),
        "ResolvedRefs": _resolved(findings.faults),
        "Programmed": _programmed(findings),
        "LocalHealthy": _local_healthy(findings),
        "RemoteHealthy": _remote_healthy(findings),
    }
    if signals := findings.signals:
        answers[AVAILABLE] = _Answer(signals.status, signals.reason, signals.message)
    answers |= {
        "Offloading": _offloading(findings),
        "FailingOver": _failing_over(findings),
        "Paused": _flag(paused, "Paused", "NotPaused", "the split is held" if paused else ""),
    }
    if fronting := findings.fronting:
        answers["Fronted"] = _flag(fronting.leads_clients, fronting.reason, fronting.reason, fronting.message)
    answers["Ready"] = _ready(findings, answers)
    return tuple(_condition(type_, answer, findings.generation) for type_, answer in answers.items())


def late_at(ready: Condition | None) -> datetime | None:
    """Say when an edit that is on its way is late; None while there is none."""
    if ready is None or ready.reason != UPDATING or ready.last_transition_time is None:
        return None
    return ready.last_transition_time + UPDATES_WITHIN


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
        # A controller that just started has heard nothing yet: that takes nothing back of what was heard.
        if before and before.reason != "NotReported":
            return _Answer(before.status, before.reason, before.message)
        why = f": {findings.silence}" if findings.silence else ""
        return _Answer("Unknown", "NotReported", f"no xDS server has told yet what the Envoys acknowledged{why}")
    if envoys.refusals:
        return _Answer("False", "Refused", "; ".join(envoys.refusals))
    if not envoys.connected:
        return _Answer("False", "NoProxies", f"{_NO_PROXIES}: {envoys.refused}" if envoys.refused else _NO_PROXIES)
    # A change of the split is no new generation: it does not take back what was said of this one.
    if envoys.programmed < envoys.connected and not (before and before.status == "True"):
        names = f": waiting for {', '.join(envoys.waiting)}" if envoys.waiting else ""
        return _Answer("False", "Pending", f"not every connected Envoy has acknowledged this generation yet{names}")
    return _Answer("True", "Programmed", "every connected Envoy has acknowledged this generation")


def _local_healthy(findings: Findings) -> _Answer:
    local = findings.facts.local
    words = f"{local.ready} of {local.total} replicas are ready{_leaving(local)}"
    if findings.uncounted:
        words = f"{words}; not counted: {'; '.join(findings.uncounted)}"
    return _flag(local.ready > 0, "ReplicasReady", "NoReadyReplica", words)


def _leaving(local: LocalFacts) -> str:
    return f"; {local.leaving} more still answer while they terminate" if local.leaving and not local.ready else ""


def _remote_healthy(findings: Findings) -> _Answer:
    if not findings.terms.may_leave:
        return _Answer("Unknown", "NoRemote", f"nothing may leave: {_why_nothing_may_leave(findings)}")
    if refused := next((one for one in findings.faults if one.reason == HOST_REFUSED), None):
        return _Answer("False", HOST_REFUSED, refused.message)
    if not findings.facts.remotes:
        return _Answer("Unknown", "NoRemote", f"nothing may leave: {findings.facts.no_remote}")
    health = findings.facts.remotes[0].health
    if health.healthy is None:
        return _Answer("Unknown", "NotMeasured", health.message)
    return _flag(health.healthy, health.reason or "Answering", health.reason or "NotAnswering", health.message)


def _offloading(findings: Findings) -> _Answer:
    """Requests leave by what was decided, or else by what Envoy does by itself."""
    decision, found = findings.decision, findings.detour
    if decision is None:
        return _Answer("Unknown", "NotServed", "there is nothing to decide on")
    if not decision.split.remote and found and found.to_remote:
        return _Answer("True", FAILOVER, found.message)
    if not decision.split.remote and findings.overflow:
        return _Answer("True", findings.overflow.reason, findings.overflow.message)
    # A split sends some away, for its own reason; what leaves beside it for want of room is told with how many.
    message = with_detour(decision.message, findings.overflow)
    return _flag(decision.split.remote > 0, decision.reason, decision.reason, message)


def _failing_over(findings: Findings) -> _Answer:
    if found := findings.detour:
        return _Answer("True", found.reason, found.message)
    if findings.undecided:
        return _Answer("Unknown", BEHIND, findings.undecided)
    if is_shared(traffic := findings.facts.traffic):
        return _Answer("Unknown", traffic.cause, f"where requests go is not known: {traffic.why}")
    but = ", but for what the replicas have no room for" if findings.overflow else ""
    return _Answer("False", "AsDecided", f"no request is known to have gone elsewhere than the split says{but}")


def _ready(findings: Findings, answers: dict[str, _Answer]) -> _Answer:
    """A model is ready when Envoy serves the route asked for, and some side can answer."""
    accepted, programmed = answers["Accepted"], answers["Programmed"]
    if accepted.status != "True":
        return _Answer("False", "NotAccepted", accepted.message)
    # What clients see comes before its cause: where nothing answers, why is part of the words.
    if findings.decision and (nothing := _nothing_answers(findings)):
        return _Answer("False", "NothingAnswers", nothing)
    if answers["ResolvedRefs"].status != "True":
        return _Answer("False", "UnresolvedRefs", answers["ResolvedRefs"].message)
    if programmed.status == "Unknown":
        # What is not known of the cause is not known of the effect.
        return _Answer("Unknown", "NotProgrammed", programmed.message)
    if programmed.status == "False":
        if programmed.reason == "Pending" and _was_ready(findings.ready_before) and not findings.edit_is_late:
            return _Answer("False", UPDATING, f"an edit is on its way: {programmed.message}")
        return _Answer("False", "NotProgrammed", programmed.message)
    return _Answer("True", "Ready")


def _was_ready(before: Condition | None) -> bool:
    return before is not None and (before.status == "True" or before.reason == UPDATING)


def _nothing_answers(findings: Findings) -> str:
    """Say why no side can answer; empty while one can, or may do so."""
    facts = findings.facts
    if facts.local.ready or facts.local.leaving:
        return ""
    if not findings.terms.may_leave or not facts.remotes:
        return f"no local replica is ready, and nothing may leave: {_why_nothing_may_leave(findings)}"
    if all(one.health.healthy is False for one in facts.remotes):
        words = next((one.health.message for one in facts.remotes if one.health.message), "")
        return f"no local replica is ready, and the remote backend does not answer: {words}"
    return ""


def _why_nothing_may_leave(findings: Findings) -> str:
    if not findings.terms.enabled:
        return "spec.enabled is false"
    return findings.facts.no_remote if not findings.facts.remotes else "behavior.mode is Shadow"
