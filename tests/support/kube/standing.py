"""A candidate in this process, for a lease so short that its end can be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from controller.api.timing import LeaseTiming
from controller.runtime.election import LeaderElector, Work
from controller.store.kube import KubeClient
from controller.store.kube.objects import KubeObjects
from controller.store.lease import StoredLease
from tests.support.kube.elected import CLOCKS, LEASE, timing

SHORT = 3
"""Seconds that the lease lasts."""
HELD = replace(timing(SHORT), lease=600, renew_deadline=300.0)
"""Renewed as often, and lost by no pause of the machine: for what happens while one leads."""
PATIENT = replace(HELD, request=100.0)
"""Neither is an answer that takes its time taken for none: for what is asked and said."""


@asynccontextmanager
async def standing(
    kubeconfig: Path, namespace: str, identity: str, work: Work, times: LeaseTiming | None = None
) -> AsyncIterator[LeaderElector]:
    """Stand for the lease, with the times of a short one unless others are given."""
    async with KubeClient.from_environment(kubeconfig) as client:
        lease = StoredLease(KubeObjects(client), namespace, LEASE)
        election = LeaderElector(lease, identity, CLOCKS, times or timing(SHORT))
        running = asyncio.create_task(election.run(work))
        try:
            yield election
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
