"""Directing a model by hand: the annotations that do it, what they say in words, and whether that is in force. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from controller.api.contract.status import ModelDeploymentStatus, VerdictStatus
from controller.api.resources.model import OVERRIDE, PAUSED, Behavior
from controller.decision import Reason
from controller.intent.intent import Override, Terms, terms_of
from controller.plan.explanation import Explanation, by_hand
from controller.store.objects import StoredObject
from controller.store.protocol import FIELD_MANAGER

Annotations = Mapping[str, str | None]
"""What annotations shall be, by name; None for one that shall not be there."""

PAUSE: Annotations = {PAUSED: "true"}
RESUME: Annotations = {PAUSED: None, OVERRIDE: None}

_UNTIL_RESUMED = "until `beamlit resume`"


def to_split(remote: int, lasting: timedelta | None, now: datetime) -> Annotations:
    """Set the share in percent that leaves, for a while from `now` (UTC) on, or until it is removed.

    It ends at a whole second, not before its time. Raises ValueError for a while below one second.
    """
    if lasting is None:
        return {OVERRIDE: f"remote={remote}"}
    if lasting < timedelta(seconds=1):
        raise ValueError("must be at least 1s")
    until = now + lasting
    until += timedelta(microseconds=-until.microsecond % 1_000_000)
    return {OVERRIDE: f"remote={remote} until={_moment(until)}"}


def ahead_of_us(asked: datetime, told: datetime, answered: datetime) -> timedelta:
    """Say how far another clock is ahead of ours, which showed `asked` and `answered` before and after it was `told`.

    It is told in whole seconds, and was at most a second later. Clocks that may agree do. Of others it is the most that
    it may be, so that what ends by the other clock does not end before its time.
    """
    least, most = told - answered, told + timedelta(seconds=1) - asked
    return timedelta(0) if least <= timedelta(0) <= most else most


def is_already(stored: StoredObject, wanted: Annotations) -> bool:
    """Say whether an object has these annotations, and none of those that it shall not have."""
    has = by_hand(stored)
    return all(has.get(name) == value for name, value in wanted.items())


def with_annotations(stored: StoredObject, wanted: Annotations) -> StoredObject:
    """Return the object as it is with these annotations."""
    metadata = dict(stored.metadata)
    annotations = {**(metadata.get("annotations") or {}), **wanted}
    metadata["annotations"] = {name: value for name, value in annotations.items() if value is not None}
    return StoredObject(stored.ref, {**stored.raw, "metadata": metadata})


def in_words(stored: StoredObject, now: datetime) -> str:
    """Say what the annotations of an object ask for at `now` (UTC)."""
    terms, mistakes = _terms(stored)
    parts = [f"{mistake}, so it has no effect" for mistake in mistakes]
    if override := terms.override:
        end = f"until {_moment(override.until)}" if override.until else _UNTIL_RESUMED
        if override.in_force(now):
            parts.append(f"set by hand: {override.remote} % of the requests go to the remote backend, {end}")
        else:
            parts.append(f"the override ended at {_moment(override.until or now)}")
    if terms.paused:
        after = terms.override is not None and terms.override.in_force(now)
        parts.append(f"paused {_UNTIL_RESUMED}{', with the split that was set by hand' if after else ''}")
    elif not (terms.override and terms.override.in_force(now)):
        parts.append("the rules decide")
    return "; ".join(parts)


def undo(before: StoredObject, after: StoredObject, now: datetime) -> tuple[str, ...]:
    """Name the commands that bring back what was asked for before, each without the model; none if nothing changed."""
    was, shall = by_hand(before), by_hand(after)
    terms, _ = _terms(before)
    override = terms.override if terms.override and terms.override.in_force(now) else None
    if was == shall or not (shall or terms.paused or override):
        return ()
    begins = ("resume",) if (shall.keys() - was.keys()) or not (terms.paused or override) else ()
    pause = ("pause",) if terms.paused and (begins or PAUSED not in shall) else ()
    split = (_command(override, now),) if override else ()
    return (*begins, *pause, *split)


def _command(override: Override, now: datetime) -> str:
    left = f" --for {max(int((override.until - now).total_seconds()), 1)}s" if override.until else ""
    return f"set-split {override.remote}{left}"


def other_managers(stored: StoredObject, wanted: Annotations) -> tuple[str, ...]:
    """Name who else manages one of these annotations, such as a GitOps controller: it may set them back.

    Kubernetes lists them in `metadata.managedFields`.
    """
    found: dict[str, None] = {}
    for entry in stored.metadata.get("managedFields") or ():
        fields = _within(_within(entry.get("fieldsV1"), "f:metadata"), "f:annotations")
        if entry.get("manager") != FIELD_MANAGER and any(f"f:{name}" in fields for name in wanted):
            found[str(entry.get("manager"))] = None
    return tuple(found)


def overruling(known: Explanation) -> VerdictStatus | None:
    """Return the rule that decides whatever is asked for by hand: one that comes before `Override` and applies."""
    first = [one.rule for one in known.verdicts if one.matched or one.rule == Reason.OVERRIDE]
    return known.winner if known.winner and first[0] != Reason.OVERRIDE and Reason.OVERRIDE in first else None


def unanswered(known: Explanation, wanted: Annotations) -> str:
    """Say that the remote backend does not answer to which these annotations send requests, and what follows from it.

    Empty where it does, where nobody knows, and where they send none there.
    """
    terms, _ = terms_of(True, Behavior(), _set(wanted))
    health = known.status.condition("RemoteHealthy")
    if terms.override is None or not terms.override.remote or health is None or health.status != "False":
        return ""
    words = f"the remote backend does not answer ({health.reason}: {health.message})"
    return f"{words}: what is sent there comes back to the replicas, and fails where none is ready"


def beside_limit(known: Explanation, wanted: Annotations) -> str:
    """Say that more leaves than these annotations send away, where the replicas take so many requests and no more.

    Empty where there is no such limit, where nothing may leave, and where they leave nothing to the replicas.
    """
    override, local = terms_of(True, Behavior(), _set(wanted))[0].override, known.status.local
    if override is None or override.remote == 100 or local is None or local.capacity is None:
        return ""
    return (
        f"what is more than {local.capacity} requests in flight leaves all the same: to end that as well, remove "
        "spec.offloadingConfig.behavior.maxRequestsPerReplica"
    )


class Standing(Enum):
    """How far what was asked for by hand has come."""

    PENDING = "not decided yet"
    OVERRULED = "a rule that comes before it decides"
    DECIDED = "decided, and not at every Envoy yet"
    IN_FORCE = "in force"


@dataclass(frozen=True, slots=True)
class Enforcement:
    """How far it has come, and that in words."""

    standing: Standing
    message: str


def enforcement(known: Explanation) -> Enforcement:
    """Say how far what the annotations of a model ask for has come.

    The status does not say which annotations it was made from; the split that it tells, and its end, do.
    """
    terms, _ = _terms(known.stored)
    override = terms.override if terms.override and terms.override.in_force(known.now) else None
    split, winner = known.status.split, known.winner
    if known.status.observed_generation != known.stored.generation or split is None:
        return Enforcement(Standing.PENDING, "; ".join(known.attention) or "not decided yet")
    asked = Reason.OVERRIDE if override else Reason.PAUSED if terms.paused else None
    decided = f"{split} {split.reason}: {split.message}"
    if not _is_read(known.status, terms, override):
        return Enforcement(Standing.PENDING, f"the controller has not decided on it yet: {decided}")
    if asked and split.reason != asked:
        overruling = f"{winner.rule} comes before it and decides: " if winner else ""
        return Enforcement(Standing.OVERRULED, f"{overruling}{split}, {split.message}")
    programmed = known.status.condition("Programmed")
    envoys, route = known.envoys, known.status.route
    if programmed is None or programmed.status != "True":
        words = programmed.message if programmed else "nothing is known of the Envoys"
        return Enforcement(Standing.DECIDED, f"{decided}; {words}")
    if envoys and route and (envoys.route != route.digest or envoys.programmed < envoys.connected):
        return Enforcement(Standing.DECIDED, f"{decided}; {envoys.programmed} of {envoys.connected} Envoys have it")
    but = unanswered(known, by_hand(known.stored)) if override else ""
    return Enforcement(Standing.IN_FORCE, f"{decided}; but {but}" if but else decided)


def _is_read(status: ModelDeploymentStatus, terms: Terms, override: Override | None) -> bool:
    """Say whether a status follows from these terms, as far as it tells."""
    said = {one.rule: one for one in status.verdicts or ()}
    overrides, pauses = said.get(Reason.OVERRIDE), said.get(Reason.PAUSED)
    if overrides is None or pauses is None or status.split is None:
        return False
    if (overrides.matched, pauses.matched) != (override is not None, terms.paused):
        return False
    if override is None or status.split.reason != Reason.OVERRIDE:
        return True
    return (status.split.remote, status.split.changes_at) == (override.remote, override.until)


def _set(wanted: Annotations) -> dict[str, str]:
    return {name: value for name, value in wanted.items() if value is not None}


def _terms(stored: StoredObject) -> tuple[Terms, tuple[str, ...]]:
    terms, mistakes = terms_of(True, Behavior(), by_hand(stored))
    return terms, tuple(map(str, mistakes))


def _within(fields: Any, name: str) -> Mapping[str, Any]:
    found = fields.get(name) if isinstance(fields, Mapping) else None
    return found if isinstance(found, Mapping) else {}


def _moment(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
