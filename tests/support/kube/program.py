"""One replica of one of our programs, as a process."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import httpx

from tests.support.beamlit import Start
from tests.support.forked import Forked
from tests.support.http import plain_http
from tests.support.processes import Child
from tests.support.waiting import PATIENCE, eventually


class Program:
    """It may be killed and started again, at the same addresses. `probe` is where it answers /readyz and /metrics."""

    def __init__(self, name: str, folder: Path, command: tuple[object, ...], probe: str, start: Start = Forked) -> None:
        self.name = name
        self.probe = probe
        self._command = command
        self._start = start
        self._log = folder / f"{name}.log"
        self._child: Child | Forked | None = None

    def start(self) -> None:
        """Start it, without waiting. In the main thread: the kernel ends it when the thread that started it ends."""
        self._child = self._start(self._command, self._log)

    async def ready(self) -> None:
        """Wait until it says so itself."""
        await eventually(self.readiness, lambda said: said == "ok", within=60)

    async def unready(self, *words: str) -> None:
        """Wait until it says that it is not, in these words."""
        await eventually(self.readiness, lambda said: all(word in said for word in words), within=30)

    async def readiness(self) -> str:
        """What it says of itself: `ok`, or what it waits for; nothing before it answers."""
        assert self._child is not None
        assert self._child.alive, f"{self.name} ended:\n{self._child.last_words()}"
        try:
            return (await self.look("/readyz")).text.strip()
        except httpx.TransportError:
            return ""

    def kill(self) -> None:
        """SIGKILL it."""
        if self._child is not None:
            self._child.kill()

    def signal(self, number: signal.Signals) -> None:
        """Signal it, without waiting."""
        assert self._child is not None
        self._child.send(number)

    def end(self) -> int:
        """SIGTERM it and return its exit code."""
        assert self._child is not None
        return self._child.terminate(within=2 * PATIENCE)

    @property
    def pid(self) -> int:
        assert self._child is not None
        return self._child.pid

    @property
    def alive(self) -> bool:
        return self._child is not None and self._child.alive

    @property
    def log(self) -> str:
        """What it wrote, over all its starts."""
        return self._log.read_text()

    async def look(self, path: str) -> httpx.Response:
        async with plain_http() as client:
            return await client.get(f"http://{self.probe}{path}")

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of one metric over all labels, or over those that match these patterns; 0 if there is no series."""
        return sum(await self.values(name, **labels))

    async def values(self, name: str, **labels: str) -> list[float]:
        """What each series of one metric says, or each whose labels match these patterns."""
        text = (await self.look("/metrics")).text
        found = re.findall(rf"^{name}(?:{{([^}}]*)}})? (\S+)$", text, re.MULTILINE)
        wanted = [re.compile(f'(^|,){label}="{pattern}"') for label, pattern in labels.items()]
        return [float(value) for said, value in found if all(one.search(said) for one in wanted)]

    async def leads(self) -> bool:
        """Whether it is the controller that decides; one that does not answer is not."""
        try:
            return await self.metric("beamlit_leader") == 1
        except httpx.TransportError:
            return False
