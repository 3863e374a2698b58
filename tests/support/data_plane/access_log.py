"""The access log of the Envoy of a test."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from tests.support.data_plane.model import Model
from tests.support.data_plane.plane import Plane
from tests.support.waiting import until

Line = dict[str, Any]


def told(plane: Plane, model: Model, kind: str = "request") -> list[Line]:
    """Every line of this kind about a model so far; each must be one object."""
    lines = [json.loads(line) for line in plane.envoy.process.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in lines if (line["model"], line["kind"]) == (model.key.name, kind)]


async def lines_of(plane: Plane, model: Model, count: int = 1, kind: str = "request") -> list[Line]:
    """Wait for so many lines of this kind; there must be no more."""

    async def are_there() -> bool:
        return len(told(plane, model, kind)) >= count

    await until(are_there, f"{count} lines: {told(plane, model, kind)}")
    await asyncio.sleep(0.3)
    lines = told(plane, model, kind)
    assert len(lines) == count, lines
    return lines


def but(line: Line, *names: str) -> Line:
    return {name: line[name] for name in names}
