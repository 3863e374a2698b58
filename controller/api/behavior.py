"""How much is offloaded, and when."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal

from pydantic import Field

from controller.api.base import ApiValue
from controller.api.scalars import Duration, Interval, Number, Percent, WholeNumber


class Behavior(ApiValue):
    """How much is offloaded, and when traffic leaves and returns."""

    percentage: Percent = 100
    """The share of the requests, in percent, that is offloaded while a metric is at or over its target."""
    mode: Literal["Threshold", "Proportional", "Shadow"] = "Threshold"
    """How the share is chosen: Threshold sends `percentage` while a metric is at or over its target, Proportional as
    much as brings the metric back to its target, Shadow sends nothing and only says what it would do."""
    max_requests_per_replica: Annotated[WholeNumber, Field(ge=1)] | None = None
    """How many requests in flight one replica serves well. What is more goes to the remote backend, request by
    request. Default: no limit."""
    offload_after: Duration = timedelta(0)
    """How long a metric must be at or over its target before requests leave."""
    restore_after: Duration = timedelta(seconds=60)
    """How long the demand that would come back must be below the target before requests return."""
    recover_after: Duration = timedelta(seconds=5)
    """How long replicas that are ready again take to get all of their traffic back, in steps."""
    tolerance: Annotated[Number, Field(ge=0, le=1)] = 0.1
    """How far below its target a metric must be to count as clear, as a fraction of the target."""
    max_step: Percent | None = None
    """The largest change of the share in one second, in percent, when mode is Proportional. Default: no limit."""
    step_interval: Interval = timedelta(seconds=1)
    """The time between two steps of the share."""
    on_unknown: Literal["Hold", "Local", "Remote"] = "Hold"
    """What becomes of the traffic that has left when no metric can be read: Hold keeps the share, Local brings
    everything back, Remote sends `percentage`."""
    first_byte_timeout: Interval | None = None
    """How long a replica may take to its first byte before the request is offloaded. Default: no limit."""
