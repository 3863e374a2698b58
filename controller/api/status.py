"""The status of a ModelDeployment: what the controller found, decided and remembers."""

from __future__ import annotations

from typing import Any

from controller.api.base import ForeignValue
from controller.api.conditions import Condition
from controller.api.route import ModelRoute, Split
from controller.api.scalars import Time

HISTORY_LENGTH = 10


class SplitStatus(Split):
    """The split in force, why, and since when."""

    reason: str
    message: str
    since: Time


class LocalStatus(ForeignValue):
    """The replicas of the local Service."""

    ready: int
    total: int


class RemoteStatus(ForeignValue):
    """The remote backend; `healthy` is absent while nothing knows."""

    host: str
    healthy: bool | None = None


class HistoryEntry(ForeignValue):
    """One past decision."""

    at: Time
    split: str
    reason: str
    message: str


class ModelDeploymentStatus(ForeignValue):
    """The whole status. `memory` belongs to the decision, `route` to the xDS server."""

    observed_generation: int = 0
    conditions: tuple[Condition, ...] = ()
    serving_port: int | None = None
    split: SplitStatus | None = None
    local: LocalStatus | None = None
    remote: RemoteStatus | None = None
    route: ModelRoute | None = None
    memory: dict[str, Any] | None = None
    history: tuple[HistoryEntry, ...] = ()

    def as_object(self) -> dict[str, Any]:
        """Return the status as the store takes it: JSON types only, nothing absent."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)
