"""A program that stands for a lease and, while it leads, keeps writing its name into the status of a model.

It says on standard output what happens to it, one line each: the monotonic clock (one for all processes of a machine)
and what it is. SIGTERM ends it as it ends the real one.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
import signal
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from controller.api.timing import LeaseTiming
from controller.runtime.election import Clocks, LeaderElector
from controller.runtime.fencing import Fenced, Leadership
from controller.store.kube import KubeClient, KubeStore
from controller.store.kube.objects import KubeObjects
from controller.store.lease import StoredLease
from controller.store.objects import ObjectRef
from controller.store.protocol import ConflictError, ObjectStore, Precondition, StoreError
from tests.support.forked import ELECTED, Forked
from tests.support.waiting import until

LEASE = "beamlit-controller"
MODEL = "contended"
PAUSE = 0.02
"""Seconds between two writes."""
CLOCKS = Clocks(time.monotonic, lambda: datetime.now(UTC))


def timing(lease: int) -> LeaseTiming:
    """The real one with a lease of so many seconds; where that is shorter, everything is in proportion.

    Giving it back may take as long as it takes on a busy machine.
    """
    usual = LeaseTiming()
    scale = min(1.0, lease / usual.lease)
    return LeaseTiming(
        lease,
        usual.renew_deadline * scale,
        usual.renew_every * scale,
        usual.look_every * scale,
        usual.request * scale,
        release=10.0,
    )


class Elected(Forked):
    """Such a program as a process, and what it said."""

    program = ELECTED

    def __init__(self, kubeconfig: Path, namespace: str, identity: str, log: Path, lease: int = 15) -> None:
        super().__init__((kubeconfig, namespace, identity, lease), log)
        self.identity = identity

    def said(self, word: str) -> list[float]:
        """When it said so."""
        lines = (line.split() for line in self.log.read_text().splitlines())
        return [float(line[0]) for line in lines if line[1:] == [word]]


@dataclass(frozen=True, slots=True)
class Writer:
    """The work of a leader: writes the status of one model, again whenever it sees that it was written."""

    store: ObjectStore
    ref: ObjectRef
    identity: str

    async def run(self, leadership: Leadership) -> None:
        say("leading")
        fenced, numbers = Fenced(self.store, leadership), itertools.count()
        try:
            async for batch in fenced.watch([self.ref.kind]):
                for stored in batch.changed:
                    await self._write(fenced, stored.resource_version, next(numbers))
        finally:
            say("stopped")

    async def _write(self, fenced: Fenced, version: str, number: int) -> None:
        await asyncio.sleep(PAUSE)
        try:
            await fenced.patch_status(self.ref, self.status(number), Precondition(resource_version=version))
        except ConflictError:
            say("ConflictError")  # The newer object is on its way.
        except StoreError as error:
            say(type(error).__name__)
            await self._write(fenced, version, number)

    def status(self, number: int) -> dict[str, object]:
        """A status that says whose it is."""
        said = {"type": "Ready", "status": "True", "reason": self.identity, "message": str(number)}
        return {"conditions": [{**said, "lastTransitionTime": "2026-01-01T00:00:00Z"}]}


def say(word: str) -> None:
    print(f"{time.monotonic():.6f} {word}", flush=True)


async def say_when_following(election: LeaderElector) -> None:
    async def follows() -> bool:
        return bool(election.holder) and not election.leading

    await until(follows, "another one leads", within=math.inf)
    say("following")


async def main(kubeconfig: str, namespace: str, identity: str, lease: str) -> None:
    me = asyncio.current_task()
    assert me
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, me.cancel)
    ref = ObjectRef("ModelDeployment", namespace, MODEL)
    async with (
        KubeClient.from_environment(Path(kubeconfig)) as client,
        KubeStore(client, ("ModelDeployment",), (namespace,)) as store,
    ):
        lock = StoredLease(KubeObjects(client), namespace, LEASE)
        election = LeaderElector(lock, identity, CLOCKS, timing(int(lease)))
        following = asyncio.create_task(say_when_following(election))
        with contextlib.suppress(asyncio.CancelledError):
            await election.run(Writer(store, ref, identity).run)
        following.cancel()
