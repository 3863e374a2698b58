"""What `beamlit explain` does: it finds a model and has it explained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta

from controller.api.timing import Timing
from controller.plan.explanation import Explanation, explain
from controller.programs.models import ClusterModels, Place, models_at


def explained(place: Place, name: str, clock: Callable[[], datetime], timing: Timing) -> Explanation:
    """Explain the model of this name as it is now. Raises ModelError."""
    return asyncio.run(_explained(place, name, clock, timing))


async def _explained(place: Place, name: str, clock: Callable[[], datetime], timing: Timing) -> Explanation:
    async with models_at(place, timing) as models:
        found = await models.find(name)
        # Its moments are of the clocks of the cluster, and what is ago or ahead is so by them.
        ahead = await models.ahead(clock) if isinstance(models, ClusterModels) else timedelta(0)
        return explain(found.stored, clock() + ahead, found.envoys, found.traffic)
