"""Kubernetes' MicroTime: RFC 3339 in UTC with six digits of a second, no more and no fewer."""

from __future__ import annotations

from datetime import UTC, datetime


def micro_time(at: datetime) -> str:
    """Write a moment, as in `2026-01-01T12:00:00.000000Z`."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def parse_micro_time(text: object) -> datetime | None:
    """Read a moment; None for what is none, or has no time zone."""
    try:
        at = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return at if at.tzinfo else None
