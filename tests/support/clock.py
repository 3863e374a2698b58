"""A clock that stands still until it is told."""

from datetime import UTC, datetime, timedelta


class Clock:
    """Called, it says the moment (UTC)."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
