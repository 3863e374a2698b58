"""`beamlit simulate` decides what the controller does: one history is played through both, and each change compared.

The controller is the real one, over a store in memory and by a clock that is set to a moment after each line. An Envoy
reports what the line says of the demand, as far as the split in the status leaves it to the replicas: what was sent
there and away, and what is in flight.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple

import pytest
import yaml

from controller.api.contract.health import RemoteHealth
from controller.api.contract.reports import Count, LoadReport
from controller.api.contract.route import REMOTE, Remote
from controller.programs.simulation.history import Line, columns_of, read_history, read_model
from controller.programs.simulation.replay import replay
from controller.signals.fleet_loads import FleetLoads
from controller.store.objects import ObjectRef
from tests.support.clock import Clock
from tests.support.controlled import controlled
from tests.support.objects import AModel, a_service, a_slice
from tests.support.proxies import AllProgrammed
from tests.support.store import MemoryStore, settled

MODEL = """\
apiVersion: deployment.beamlit.com/v1alpha1
kind: ModelDeployment
metadata: {name: chat}
spec:
  model: chat
  modelSourceRef: {apiVersion: apps/v1, kind: Deployment, name: chat}
  serviceRef: {name: chat}
  offloadingConfig:
    behavior: {mode: MODE, percentage: 100, offloadAfter: 2s, restoreAfter: 24s, recoverAfter: 6s}
    metrics:
    - {type: Requests, requests: {target: {type: AverageValue, averageValue: 800}}}
    remoteBackend: {host: models.example.com}
"""
DEMAND = ((400, 20), (1200, 40), (2000, 40), (900, 20), (400, 60), (None, 5), (400, 20), (1000, 3), (400, 60))
"""Of each phase how many requests are in flight, each for a second, and for how many seconds. None: no replica is
ready, and as many come as before.
"""
A_MOMENT = timedelta(milliseconds=1)
"""What was measured is known before anything is decided on it."""


class Change(NamedTuple):
    """What was decided at a moment, and was not before."""

    at: datetime
    split: str
    reason: str
    message: str


def history() -> Iterator[str]:
    """A line for each second: so many are in flight at its end, and came in it."""
    yield "time,Requests,local_requests,ready"
    at, before = int(Clock().now.timestamp()), 0
    for flying, seconds in DEMAND:
        for _ in range(seconds):
            before = flying or before
            yield f"{at},{flying or ''},{before},{int(flying is not None)}"
            at += 1


def changes(made: Sequence[Change]) -> list[Change]:
    return [
        made[0],
        *(later for one, later in pairwise(made) if (one.split, one.reason) != (later.split, later.reason)),
    ]


class Answering(AllProgrammed):
    def remote(self, model: ObjectRef, remote: Remote) -> RemoteHealth | None:
        return RemoteHealth(healthy=True)


class Envoy:
    """Reports what it counted since it began."""

    def __init__(self, loads: FleetLoads) -> None:
        self._loads = loads
        self._here, self._away, self._seconds = Count(), Count(), 0

    def reports(self, line: Line, local: int) -> None:
        """Report what came since the last line and is in flight, of which so many percent are local."""
        came = round(line.local or 0) if self._seconds else 0
        here = came * local // 100
        flying = int(line.values["Requests"] or 0) * local // 100
        self._here = Count(self._here.issued + here, self._here.issued + here - flying, 0, flying)
        self._away = Count(self._away.issued + came - here, self._away.issued + came - here)
        counts = {"model/default/chat/local": self._here, f"model/default/chat/{REMOTE}": self._away}
        report = LoadReport(node="envoy", began=1.0, seconds=self._seconds, age=0.0, counts=counts)
        self._loads.add_report(report, line.at)
        self._seconds += 1


async def lived(manifest: str, lines: Sequence[Line]) -> list[Change]:
    """What the controller decides, as its statuses say it."""
    model, clock, loads = AModel(yaml.safe_load(manifest)), Clock(), FleetLoads()
    store = MemoryStore(
        [one.stored() for one in (model, a_service("chat").port(80), a_slice("chat").ready("10.0.0.1"))]
    )
    envoy, made = Envoy(loads), list[Change]()
    envoy.reports(lines[0], 100)
    clock.now = lines[0].at + A_MOMENT
    async with controlled(store, clock, proxies=Answering(), loads=loads) as running:
        for number, line in enumerate(lines):
            clock.now = line.at + A_MOMENT
            if number:
                envoy.reports(line, store[model.ref].status["split"]["local"])
                slices = a_slice("chat")
                slices = slices.ready("10.0.0.1") if line.ready else slices.not_ready("10.0.0.1")
                store.put(slices.stored(version=f"{number + 1}"))
                running.controller.look_at_loads()
                await settled()
            split = store[model.ref].status["split"]
            made.append(Change(line.at, f"{split['local']}/{split['remote']}", split["reason"], split["message"]))
    return changes(made)


@pytest.mark.long
@pytest.mark.parametrize("mode", ["Threshold", "Proportional"])
async def test_each_change_has_its_moment_its_split_and_its_words(mode: str) -> None:
    manifest = MODEL.replace("MODE", mode)
    intent = read_model("model.yaml", manifest)
    lines = read_history("history.csv", "\n".join(history()), *columns_of(intent))
    simulated = changes(
        [
            Change(one.at, str(one.decision.split), one.decision.reason, one.decision.message)
            for one in replay(intent, lines)
        ]
    )
    assert len(simulated) > 10
    assert simulated == await lived(manifest, lines)
