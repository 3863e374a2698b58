"""`beamlit envoy` as a process of its own, on the control plane of a test."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import httpx

from controller.gateway.bootstrap import HostPort
from tests.support.beamlit import Start
from tests.support.forked import Forked
from tests.support.http import plain_http
from tests.support.network import unused_port
from tests.support.waiting import PATIENCE, until


class Gateway:
    """One gateway: the command, and the Envoy that it started."""

    def __init__(
        self, name: str, xds: HostPort, token: str, folder: Path, *options: object, start: Start = Forked
    ) -> None:
        self.admin = f"127.0.0.1:{unused_port()}"
        secret = folder / f"{name}.token"
        secret.write_text(token)
        addresses = ("--xds-address", xds, "--admin-address", self.admin)
        command = ("envoy", "--node-id", name, *addresses, "--node-token-file", secret, *options)
        # What a killed one leaves behind is in the folder of the test.
        where = {"TMPDIR": str(folder)}
        self.process = start((*command, "--", "--concurrency", "2"), folder / f"{name}.log", where)

    async def ready(self) -> None:
        """Wait until its readiness probe says so."""

        async def is_ready() -> bool:
            assert self.process.alive, f"beamlit envoy ended:\n{self.process.last_words()}"
            return (await self.readiness())[0] == 200

        await until(is_ready, "beamlit envoy is ready")

    async def readiness(self) -> tuple[int, str]:
        """What /readyz answers; (0, "") while nobody does."""
        try:
            async with plain_http() as client:
                answer = await client.get(f"http://{self.admin}/readyz", timeout=60)
        except httpx.TransportError:
            return 0, ""
        return answer.status_code, answer.text.strip()

    @property
    def envoy_pid(self) -> int:
        found = re.search(r"started envoy pid=(\d+)", self.process.log.read_text())
        assert found, self.process.last_words()
        return int(found[1])

    def signal_envoy(self, number: signal.Signals) -> None:
        """Signal the Envoy itself."""
        os.kill(self.envoy_pid, number)

    async def ended(self, within: float = PATIENCE) -> int:
        """Wait for the end of the command, which has logged no traceback; return its exit code."""

        async def is_over() -> bool:
            return not self.process.alive

        await until(is_over, f"beamlit envoy ends:\n{self.process.last_words()}", within)
        assert "Traceback" not in self.process.log.read_text(), self.process.last_words()
        return self.process.terminate()

    def stop(self) -> None:
        """SIGKILL it; the kernel ends its Envoy with it."""
        self.process.kill()
