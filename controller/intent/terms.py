"""What an object asks of the decision: its behavior, and what its annotations say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from controller.api.resources.model import OVERRIDE, PAUSED, Behavior
from controller.api.schema.errors import FieldError


@dataclass(frozen=True, slots=True)
class Override:
    """A split set by hand: `remote` percent leave, until a moment or until the annotation is removed."""

    remote: int
    until: datetime | None = None

    def in_force(self, now: datetime) -> bool:
        """Whether it still holds."""
        return self.until is None or now < self.until


@dataclass(frozen=True, slots=True)
class Terms:
    """What the rules of the decision need to know of an object."""

    enabled: bool
    paused: bool = False
    override: Override | None = None
    recover_after: timedelta = timedelta(seconds=5)
    step_interval: timedelta = timedelta(seconds=1)
    max_requests_per_replica: int | None = None


def terms_of(enabled: bool, behavior: Behavior, annotations: Mapping[str, str]) -> tuple[Terms, tuple[FieldError, ...]]:
    """Read the terms of an object, and the faults of its annotations, which have no effect then."""
    errors: list[FieldError] = []
    override = None
    if text := annotations.get(OVERRIDE):
        try:
            override = parse_override(text)
        except ValueError as error:
            errors.append(FieldError(("metadata", "annotations", OVERRIDE), str(error)))
    paused = annotations.get(PAUSED, "false")
    if paused not in ("true", "false"):
        errors.append(FieldError(("metadata", "annotations", PAUSED), f'must be "true" or "false", is {paused!r}'))
    terms = Terms(
        enabled=enabled,
        paused=paused == "true",
        override=override,
        recover_after=behavior.recover_after,
        step_interval=behavior.step_interval,
        max_requests_per_replica=behavior.max_requests_per_replica,
    )
    return terms, tuple(errors)


def parse_override(text: str) -> Override:
    """Parse `remote=30` or `remote=30 until=2026-01-01T00:00:00Z`; raise ValueError with what is wrong."""
    words = [word.partition("=")[::2] for word in text.split()]
    pairs = dict(words)
    if len(pairs) < len(words):
        raise ValueError("names a word twice; write it as 'remote=30 until=2026-01-01T00:00:00Z'")
    unknown = sorted(pairs.keys() - {"remote", "until"})
    if unknown:
        raise ValueError(f"has the unknown word {unknown[0]!r}; write it as 'remote=30 until=2026-01-01T00:00:00Z'")
    remote = pairs.get("remote", "")
    if not (remote.isascii() and remote.isdigit() and len(remote) <= 3 and int(remote) <= 100):
        raise ValueError(f"remote must be a whole number from 0 to 100, is {remote!r}")
    until = None
    if "until" in pairs:
        until = _moment(pairs["until"])
        if until is None:
            raise ValueError(f"until must be a time such as 2026-01-01T00:00:00Z, is {pairs['until']!r}")
    return Override(remote=int(remote), until=until)


def _moment(text: str) -> datetime | None:
    """Read a time that says its zone, as UTC."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else None
    except (ValueError, OverflowError):
        return None
