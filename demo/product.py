"""The product as the demo sees it: `beamlit run` with its Envoy, and what its status says of where requests go."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from demo.addresses import Addresses
from demo.manifests import MODEL
from tests.support.processes import Child, Children

_POLL = 0.2


@dataclass(frozen=True, slots=True)
class Decision:
    """What the controller decided: shares in percent, and a sentence with the cause.

    `reason` is one word, as the column REASON of kubectl has it: why requests leave, also if nobody decided that. With
    other numbers in the sentence it is the same decision.
    """

    local: int
    remote: int
    reason: str
    message: str = field(compare=False)

    @property
    def split(self) -> str:
        """The shares as they are written everywhere: local/remote."""
        return f"{self.local}/{self.remote}"

    def __str__(self) -> str:
        return f"{self.split} {self.reason}"


def decision_of(items: Mapping[str, Any]) -> Decision | None:
    """Read the decision about the demo's model from the answer of the status endpoint; None before there is one."""
    for item in items.get("items", ()):
        status = item.get("status") or {}
        if item["metadata"]["name"] == MODEL and (split := status.get("split")):
            reason = status.get("reason") or split["reason"]
            return Decision(split["local"], split["remote"], reason, split.get("message", ""))
    return None


def start_product(folder: Path, state: Path, addresses: Addresses, processes: Children) -> Child:
    """Start the control plane and its Envoy over a folder of YAML."""
    command = [sys.executable, "-m", "controller.cli.main", "run", str(folder), "--envoy"]
    command += ["--xds-address", f"127.0.0.1:{addresses.xds}", "--admin-address", f"127.0.0.1:{addresses.admin}"]
    return processes.start("control-plane", [*command, "--state-dir", str(state)], end_with=signal.SIGTERM)


async def decisions(admin_port: int) -> AsyncGenerator[Decision]:
    """Yield the decision in force, then each change of it, for ever. A status that cannot be read is read again."""
    last = None
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as session:
        while True:
            try:
                async with session.get(f"http://127.0.0.1:{admin_port}/status", raise_for_status=True) as answer:
                    now = decision_of(await answer.json())
            except (aiohttp.ClientError, TimeoutError):
                now = None
            if now is not None and now != last:
                last = now
                yield now
            await asyncio.sleep(_POLL)
