"""What a restart must not forget. It lives in `status.memory`, so a new leader continues exactly."""

from __future__ import annotations

from datetime import datetime

from controller.api.contract.route import Split
from controller.api.schema.values import ForeignValue
from controller.decision.decision import Decision, Reason


class Memory(ForeignValue):
    """The state of one model's decision between two evaluations.

    `split`, `reason` and `splitSince` are the last decision. `localLostAt` is when the last ready replica went, until
    local serves in full again; `localBackAt` is when the first came back after that.
    """

    split: Split | None = None
    reason: Reason | None = None
    split_since: datetime | None = None
    local_lost_at: datetime | None = None
    local_back_at: datetime | None = None

    def observing(self, ready: int, now: datetime) -> Memory:
        """Return the memory that has seen `ready` replicas at `now`."""
        if ready == 0:
            return self.model_copy(update={"local_lost_at": self.local_lost_at or now, "local_back_at": None})
        if self.local_lost_at is not None and self.local_back_at is None:
            return self.model_copy(update={"local_back_at": now})
        return self

    def recovered(self) -> Memory:
        """Return the memory of a local side that serves in full again."""
        return self.model_copy(update={"local_lost_at": None, "local_back_at": None})

    def deciding(self, decision: Decision, now: datetime) -> Memory:
        """Return the memory that has made `decision` at `now`."""
        since = self.split_since if self.split == decision.split and self.split_since else now
        return self.model_copy(update={"split": decision.split, "reason": decision.reason, "split_since": since})
