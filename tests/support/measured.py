"""Loads and the metrics that they are compared with, said in a few words."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from controller.decision import Known
from controller.signals.load_reports import Load, Rate


def in_flight(number: int, at: datetime) -> Known[Load]:
    """So many requests are in flight."""
    return Known(Load(in_flight=number, local=Rate(0.0, 0.0), remote=Rate(0.0, 0.0)), at)


def in_flight_each(target: str) -> dict[str, Any]:
    """A metric: so many requests in flight for each replica."""
    return {"type": "Requests", "requests": {"target": {"type": "AverageValue", "averageValue": target}}}
