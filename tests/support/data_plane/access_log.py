"""The access log of the Envoy of a test."""

from __future__ import annotations

import json
from typing import Any

from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.waiting import until
from xds_server.resources.access_log import AccessLog

Line = dict[str, Any]


def told(plane: Plane, model: Model, kind: str = "request") -> list[Line]:
    """Every line of this kind about a model so far; each must be one object."""
    # Envoy may be writing: what has no end yet is no line.
    whole, _, _ = plane.envoy.process.log.read_text().rpartition("\n")
    lines = [json.loads(line) for line in whole.splitlines() if line.startswith("{")]
    return [line for line in lines if (line["model"], line["kind"]) == (model.key.name, kind)]


async def lines_of(plane: Plane, model: Model, count: int = 1, kind: str = "request") -> list[Line]:
    """Wait for so many lines of this kind; there must be no more."""

    async def are_there() -> bool:
        return len(told(plane, model, kind)) >= count

    await until(are_there, f"{count} lines: {told(plane, model, kind)}", within=30)
    await _told_of_a_later_request(plane)
    lines = told(plane, model, kind)
    assert len(lines) == count, lines
    return lines


async def _told_of_a_later_request(plane: Plane) -> None:
    """Wait for the line of a request of now: all workers of Envoy write one log, so what was told before is in it."""
    later = await plane.serve(Wanted(access_log=AccessLog.ALL))
    await plane.ask(later)

    async def is_there() -> bool:
        return bool(told(plane, later))

    await until(is_there, "the line of a later request", within=30)


def but(line: Line, *names: str) -> Line:
    return {name: line[name] for name in names}
