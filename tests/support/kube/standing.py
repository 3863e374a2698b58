"""A candidate in this process, for a lease so short that its end can be waited for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from controller.runtime.election import LeaderElector, Work
from controller.store.kube import KubeClient
from controller.store.kube.objects import KubeObjects
from controller.store.lease import StoredLease
from tests.support.kube.elected import CLOCKS, LEASE, timing

SHORT = 3
"""Seconds that the lease lasts."""


@asynccontextmanager
async def standing(kubeconfig: Path, namespace: str, identity: str, work: Work) -> AsyncIterator[LeaderElector]:
    async with KubeClient.from_environment(kubeconfig) as client:
        election = LeaderElector(StoredLease(KubeObjects(client), namespace, LEASE), identity, CLOCKS, timing(SHORT))
        running = asyncio.create_task(election.run(work))
        try:
            yield election
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
