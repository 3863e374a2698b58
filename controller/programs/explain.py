"""What `beamlit explain` does: it finds a model and has it explained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime

from controller.api.timing import Timing
from controller.plan.explanation import Explanation, explain
from controller.programs.models import Place, models_at


def explained(place: Place, name: str, clock: Callable[[], datetime], timing: Timing) -> Explanation:
    """Explain the model of this name as it is now. Raises ModelError."""
    return asyncio.run(_explained(place, name, clock, timing))


async def _explained(place: Place, name: str, clock: Callable[[], datetime], timing: Timing) -> Explanation:
    async with models_at(place, timing) as models:
        found = await models.find(name)
        return explain(found.stored, clock(), found.envoys, found.traffic)
