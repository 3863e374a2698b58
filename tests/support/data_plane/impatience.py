"""A stage on which what goes is gone soon.

A listener that goes stays for a moment here and is drained for a second then, by default for five seconds and ten
minutes: what would be cut then is cut now.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from controller.api.contract.route import ReplicaCheck
from tests.support.data_plane.model import Model
from tests.support.data_plane.open_streams import opened
from tests.support.data_plane.stage import Stage, stage_on
from tests.support.network import Network
from tests.support.timing import PATIENT
from tests.support.waiting import until

DRAINED_SECONDS = 1
TIMING = replace(PATIENT, gateway=replace(PATIENT.gateway, vacated=0, departed=0.2))
CHECK = ReplicaCheck(path="/healthz", interval=timedelta(seconds=1))


def impatient_stage_on(
    network: Network, folder: Path, drained: int = DRAINED_SECONDS
) -> AbstractAsyncContextManager[Stage]:
    return stage_on(network, folder, "--drain-time-s", str(drained), timing=TIMING)


async def served(stage: Stage, way: str = "local", **more: Any) -> dict[str, Model]:
    """Serve a model of each protocol."""
    wanted = stage.http.wanted(way, **more), stage.rpc.wanted(way, **more)
    http, rpc = await asyncio.gather(*map(stage.plane.serve, wanted))
    return {"http": http, "rpc": rpc}


async def a_drain(stage: Stage) -> None:
    """Wait for as long as a listener that goes now stays and is drained: withdraw models with streams, until they end.

    What is known as it begins would be cut sooner.
    """
    models = await served(stage)
    async with opened(stage, models, 3) as streams:
        await asyncio.gather(*map(stage.plane.withdraw, models.values()))
        await until(lambda: len(streams.cut) == 3, "the streams of models that went have ended", within=60)


async def change(stage: Stage, models: Mapping[str, Model], **more: Any) -> None:
    await asyncio.gather(*(stage.plane.change(model, replace(model.wanted, **more)) for model in models.values()))
