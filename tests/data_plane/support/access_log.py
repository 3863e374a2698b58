"""The access log of the Envoy of a test."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.data_plane.support.model import Model
from tests.data_plane.support.plane import Plane
from tests.data_plane.support.waiting import until

Line = dict[str, Any]


def told(plane: Plane, model: Model) -> list[Line]:
    """Every line about a model so far; each must be one object."""
    lines = [json.loads(line) for line in plane.envoy.process.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if line["model"] == model.key.name]


async def lines_of(plane: Plane, model: Model, count: int = 1) -> list[Line]:
    """Wait for so many lines; there must be no more."""

    async def are_there() -> bool:
        return len(told(plane, model)) >= count

    await until(are_there, f"{count} lines: {told(plane, model)}")
    await asyncio.sleep(0.3)
    lines = told(plane, model)
    assert len(lines) == count, lines
    return lines


def but(line: Line, *names: str) -> Line:
    return {name: line[name] for name in names}
