"""The status of a ModelDeployment: conditions, split, replicas, route and history."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import Field, WithJsonSchema, computed_field

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import Route, Split
from controller.api.schema.scalars import Flag, Percent, Port, Time
from controller.api.schema.values import ForeignValue


class Condition(ForeignValue):
    """One observation of an object's state. `lastTransitionTime` is when `status` last changed, not the words."""

    type: str
    """What is observed, such as Ready."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: str
    """Why, in one word."""
    message: str
    """Why, in a sentence."""
    observed_generation: int
    """The generation of the object that this is about."""
    last_transition_time: Time | None = None
    """When status last changed."""


def with_transitions(
    conditions: Iterable[Condition], before: Iterable[Condition], now: datetime
) -> tuple[Condition, ...]:
    """Give each condition the time of its last transition, knowing the conditions before.

    None is later than `now`: what follows some time after a transition does so though the clock was set back.
    """
    known = {old.type: old for old in before}
    return tuple(_with_transition(one, known.get(one.type), now) for one in conditions)


def _with_transition(condition: Condition, before: Condition | None, now: datetime) -> Condition:
    if before is None or before.status != condition.status:
        return condition.model_copy(update={"last_transition_time": now})
    since = min(before.last_transition_time or now, now)
    if since == before.last_transition_time and _said(condition) == _said(before):
        return before  # as most are, with each look
    return condition.model_copy(update={"last_transition_time": since})


def _said(condition: Condition) -> tuple[str, str, int]:
    return condition.reason, condition.message, condition.observed_generation


HISTORY_LENGTH = 10

# An API server that knew an older form of the route would leave out what is new in it, such as TLS: it knows none.
_OPAQUE = WithJsonSchema({"type": "object", "x-kubernetes-preserve-unknown-fields": True})
_BY_TYPE = Field(json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]})


class SplitStatus(Split):
    """The split in force, why, and since when."""

    local: Percent
    """The share of the requests that stays, in percent."""
    remote: Percent
    """The share of the requests that goes to the remote backend, in percent."""
    reason: str
    """Why, in one word."""
    message: str
    """Why, in a sentence, with what was measured."""
    since: Time
    """Since when."""
    returns: str | None = None
    """What would change it."""
    changes_at: Time | None = None
    """When it may change with nothing else changing; absent while time alone changes nothing."""
    would_be: str | None = None
    """The split that Shadow keeps from being, and its reason, such as 50/50 Overloaded."""

    @computed_field(description="Both shares in one text, such as 80/20.")  # type: ignore[prop-decorator]
    @property
    def summary(self) -> str:
        """Both shares in one text, as a column shows them."""
        return str(self)


class VerdictStatus(ForeignValue):
    """What one rule of the decision said."""

    rule: str
    """The rule, by the reason that it gives, such as LocalDown."""
    matched: bool
    """Whether it applies. The first that does decides."""
    message: str
    """Why it applies or does not, with what was measured."""


class LocalStatus(ForeignValue):
    """The replicas of the local Service."""

    ready: int
    """How many are ready."""
    total: int
    """How many there are, but for those on their way out."""
    capacity: int | None = None
    """How many requests in flight those that are ready take together by maxRequestsPerReplica; what is more leaves."""

    @computed_field(description="Both numbers in one text, such as 2/3.")  # type: ignore[prop-decorator]
    @property
    def summary(self) -> str:
        """Both numbers in one text, as a column shows them."""
        return f"{self.ready}/{self.total}"


class RemoteStatus(ForeignValue):
    """The remote backend."""

    host: str
    """The host that requests are sent to."""
    healthy: bool | None = None
    """Whether it answers; absent while nothing knows."""
    reason: str | None = None
    """Why, in one word; absent while nothing knows."""
    message: str | None = None
    """Why, in a sentence."""
    since: Time | None = None
    """Since when it answers, or does not."""

    @classmethod
    def of(cls, host: str, health: RemoteHealth | None) -> Self:
        """Build the status of a backend of this health, None while nobody knows anything of it."""
        known = health or RemoteHealth()
        return cls(
            host=host,
            healthy=known.healthy,
            reason=known.reason or None,
            message=known.message or None,
            since=known.since,
        )

    @property
    def health(self) -> RemoteHealth | None:
        """The health that this was built from."""
        known = RemoteHealth(
            healthy=self.healthy, reason=self.reason or "", message=self.message or "", since=self.since
        )
        return None if known == RemoteHealth() else known


class TrafficStatus(ForeignValue):
    """Where Envoys sent requests by the present split, but for those that failed there; as of when this was written."""

    local: int
    """How many to the replicas."""
    remote: int
    """How many to the remote backend."""
    seconds: float
    """In how many seconds; 0 while that is not known."""
    at: Time
    """When they were counted."""


class DetourStatus(ForeignValue):
    """What Envoy does with requests by itself, against the split or beside it. The conditions say it, too."""

    reason: str
    """Why, in one word: Overflow where the replicas have no room, or the reason of the condition FailingOver."""
    message: str
    """Why, in a sentence, with what was counted."""
    to_remote: bool
    """Whether more leave than the split says; else fewer do."""


class SignalStatus(ForeignValue):
    """One metric of spec.offloadingConfig.metrics, as it was last compared with its target."""

    name: str
    """The name of the metric."""
    current: str | None = None
    """What was measured; absent while it is unknown."""
    target: str
    """What it is compared with."""
    state: Literal["Clear", "Breached", "Unknown"]
    """How the two compare."""
    reason: str | None = None
    """Why it is unknown, in one word; absent while it is known."""
    message: str | None = None
    """Why it is unknown, or what its source says beside the number."""
    since: Time | None = None
    """Since when."""
    at: Time | None = None
    """When it was measured."""
    window: str | None = None
    """What it is an average over, such as 60s; absent for a number of that moment alone."""
    window_from: str | None = None
    """Who says so: Spec (window of the metric), Source (with the number), Query (its longest range), or Assumed."""


class HistoryEntry(ForeignValue):
    """One past decision."""

    at: Time
    """When it was made."""
    split: str
    """The split it set, such as 80/20."""
    reason: str
    """Why, in one word."""
    message: str
    """Why, in a sentence."""
    times: int | None = None
    """How often it was made since then, where a sequence of decisions came again and again; absent for once."""
    since: Time | None = None
    """When it was made the first of these times."""
    would_be: str | None = None
    """The split that Shadow kept from being, and its reason, such as 50/50 Overloaded."""


class TakeoverStatus(ForeignValue):
    """The Service that shall lead its clients to the gateway, for as long as this stands in a status."""

    namespace: str
    """The namespace of the Service."""
    service: str
    """The name of the Service."""
    port_name: str = ""
    """The name of its port that leads to the gateway, empty for an unnamed one."""


class ModelDeploymentStatus(ForeignValue):
    """What the controller found, decided and remembers."""

    controller: str | None = None
    """Which controller wrote this: its Lease, as NAMESPACE/NAME."""
    observed_generation: int = 0
    """The generation of the object that this status is about."""
    conditions: Annotated[tuple[Condition, ...], _BY_TYPE] = ()
    """What holds of the model: Accepted, ResolvedRefs, Programmed, LocalHealthy, RemoteHealthy, SignalsAvailable,
    Offloading, FailingOver, Paused, Fronted and Ready."""
    serving_port: Port | None = None
    """The port on the gateway that serves the model, kept for life."""
    frontend: str | None = None
    """How clients reach the model, whatever spec.frontend asks for; absent while it is not served."""
    takeover: TakeoverStatus | None = None
    """The Service that is taken over for the model, or is about to be; absent once it shall be as it was."""
    metric_port: Port | None = None
    """The port of the model's metrics on the platform."""
    workspace: str | None = None
    """The workspace on the platform."""
    created_at_on_beamlit: Time | None = None
    """When the model was created on the platform."""
    updated_at_on_beamlit: Time | None = None
    """When the model was last changed on the platform."""
    split: SplitStatus | None = None
    """The split in force."""
    verdicts: tuple[VerdictStatus, ...] | None = None
    """What every rule of the decision said, in the order in which they are asked."""
    local: LocalStatus | None = None
    """The replicas of the local Service."""
    remote: RemoteStatus | None = None
    """The remote backend, if the model has one."""
    signals: tuple[SignalStatus, ...] | None = None
    """The metrics, as they were last compared with their targets."""
    traffic: TrafficStatus | None = None
    """Where requests went when this was written; absent where none were counted. For its own sake it is written once
    for a split that sends some away."""
    detour: DetourStatus | None = None
    """What Envoy does by itself against the split or beside it; absent while none is known to go elsewhere."""
    route: Annotated[Route | None, _OPAQUE] = None
    """The whole configuration of the model for the xDS server. It has no secret in it."""
    withdrawn: Flag | None = None
    """True if there is no route since the model may not have the one that it had or asks for, and no other was given
    to it afterwards. Envoy serves it no longer."""
    memory: Annotated[dict[str, Any] | None, _OPAQUE] = None
    """What the decision remembers, so that a restart continues exactly."""
    history: tuple[HistoryEntry, ...] = ()
    """The last decisions, newest first."""

    @computed_field(description="Whether requests are being offloaded now.")  # type: ignore[prop-decorator]
    @property
    def offloading_status(self) -> bool:
        """Whether requests are being offloaded now: what the original has, and never wrote."""
        leaves = self.condition("Offloading")
        return (self.split is not None and self.split.remote > 0) or (leaves is not None and leaves.status == "True")

    @computed_field(  # type: ignore[prop-decorator]
        description="In one word: why the model is not accepted or not served, or else why the split is what it is; "
        "SignalsNotAvailable where nothing leaves and a metric cannot be read."
    )
    @property
    def reason(self) -> str | None:
        """Why it is as it is, in one word, as a column shows it."""
        causes = (self.condition("Accepted"), None if self.split else self.condition("ResolvedRefs"))
        cause = next((one for one in causes if one and one.status == "False"), None)
        if cause or self.split is None:
            return cause.reason if cause else None
        leaves = self.condition("Offloading")
        # Where requests leave that were not decided to, that is what there is to know.
        if leaves and leaves.status == "True":
            return leaves.reason
        measured = self.condition("SignalsAvailable")
        is_blind = self.split.reason == "Steady" and measured is not None and measured.status == "False"
        return "SignalsNotAvailable" if is_blind else self.split.reason

    @property
    def remote_health(self) -> RemoteHealth | None:
        """The health of the remote backend that is tried first; None while nobody knows anything of it.

        The version before kept its words and its time in the condition RemoteHealthy alone.
        """
        health = self.remote.health if self.remote else None
        if health is None or health.healthy is None or health.reason:
            return health
        words = {"True": True, "False": False}
        for one in self.conditions:
            if one.type == "RemoteHealthy" and words.get(one.status) is health.healthy:
                return RemoteHealth(
                    healthy=health.healthy, reason=one.reason, message=one.message, since=one.last_transition_time
                )
        return health

    def condition(self, type_: str) -> Condition | None:
        """Find a condition."""
        return next((one for one in self.conditions if one.type == type_), None)

    def as_object(self) -> dict[str, Any]:
        """Return the status as the store takes it: JSON types only, nothing absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    def differing_from(self, other: Self) -> frozenset[str]:
        """Name the fields in which two statuses differ, and what is computed of them."""
        names = (one for one in type(self).model_fields if getattr(self, one) != getattr(other, one))
        return frozenset((*names, *type(self).model_computed_fields))

    def part(self, fields: frozenset[str]) -> dict[str, Any]:
        """Return these of its fields, as `as_object` does."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True, include=set(fields))


_WITHDRAWING = (
    ("Accepted", "Conflict"),
    ("Accepted", "NoPort"),
    ("Accepted", "RefNotPermitted"),
    ("ResolvedRefs", "RefNotPermitted"),
)


def is_withdrawn(status: Mapping[str, Any]) -> bool:
    """Say whether a status, as it is stored, has no route because the controller took it away: another model has it, or
    the namespace of its Service does not permit it.

    A route that merely vanished (a status restored from a backup, or not written yet) is not withdrawn.
    """
    if status.get("route"):
        return False
    return status.get("withdrawn") is True or any(
        isinstance(one, Mapping) and (one.get("type"), one.get("reason")) in _WITHDRAWING
        for one in status.get("conditions") or ()
    )
