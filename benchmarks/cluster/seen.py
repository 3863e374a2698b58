"""The models of one namespace as anybody sees them who watches the API server, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import Any

from controller.store.objects import StoredObject
from controller.store.protocol import ObjectStore


class Seen:
    """Follows a store and keeps the moments (`time.perf_counter`, seconds) at which all models were so far."""

    def __init__(self, store: ObjectStore, models: int) -> None:
        self.ports: dict[str, int] = {}
        """The port of the gateway of each model that has a route."""
        self.routed = asyncio.Event()
        self.programmed = asyncio.Event()
        self.last_route = self.last_programmed = 0.0
        """When the last model had its first route, and when the last was programmed."""
        self.unprogrammed: dict[str, str] = {}
        """What is said of each model that has a route and was never programmed."""
        self._programmed: set[str] = set()
        self._store = store
        self._models = models
        self._awaited: dict[str, tuple[int, asyncio.Future[float]]] = {}

    async def run(self) -> None:
        """Follow until cancelled."""
        async for batch in self._store.watch(["ModelDeployment"]):
            now = time.perf_counter()
            for stored in batch.changed:
                self._look_at(stored, now)

    def split(self, name: str, remote: int) -> asyncio.Future[float]:
        """Watch out for the moment at which the route of a model sends so many percent away."""
        moment: asyncio.Future[float] = asyncio.get_running_loop().create_future()
        self._awaited[name] = (remote, moment)
        return moment

    def _look_at(self, stored: StoredObject, now: float) -> None:
        name, route = stored.ref.name, stored.status.get("route")
        if not route:
            return
        if name not in self.ports:
            self.ports[name] = int(route["port"])
            self.last_route = now
            if len(self.ports) == self._models:
                self.routed.set()
        if name not in self._programmed:
            self._look_at_programmed(name, stored.status, now)
        remote, moment = self._awaited.get(name, (-1, None))
        if moment and not moment.done() and route["split"]["remote"] == remote:
            moment.set_result(now)

    @property
    def count_programmed(self) -> int:
        """How many models were programmed at some time."""
        return len(self._programmed)

    def _look_at_programmed(self, name: str, status: Mapping[str, Any], now: float) -> None:
        for one in status.get("conditions", ()):
            if one["type"] == "Programmed":
                self.unprogrammed[name] = f"{one['reason']}: {one['message']}"
                if one["status"] == "True":
                    del self.unprogrammed[name]
                    self._programmed.add(name)
                    self.last_programmed = now
        if len(self._programmed) == self._models:
            self.programmed.set()
