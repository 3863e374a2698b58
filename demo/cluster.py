"""What a cluster has besides the product: model servers, the kubelet that probes them, and the objects in a folder."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import replace
from pathlib import Path

from demo.addresses import Addresses
from demo.manifests import REMOTE_PREFIX, Replica, model_yaml, service_yaml, slices_yaml
from demo.probe import wait_for_answer
from demo.process import Process, Processes

READINESS_PERIOD = 1.0
"""Seconds until the readiness probe notices a dead server."""


class Cluster:
    """Three replicas of one model, a remote backend, and the folder of YAML about them."""

    def __init__(self, folder: Path, addresses: Addresses, processes: Processes) -> None:
        self._folder = folder
        self._processes = processes
        self._servers: dict[str, Process] = {}
        self.addresses = addresses
        self.replicas = tuple(
            Replica(f"local-{number}", host, port) for number, (host, port) in enumerate(addresses.replicas, 1)
        )

    @property
    def url(self) -> str:
        """Where clients send their requests: Envoy, on the node port of the Service."""
        return f"http://127.0.0.1:{self.addresses.front}/v1/completions"

    async def start(self) -> None:
        """Start every model server and write every object. Raises DemoError when one does not answer."""
        await asyncio.gather(
            self.start_locals(), self._start_server("remote", "127.0.0.1", self.addresses.remote, REMOTE_PREFIX)
        )
        self._write("model.yaml", model_yaml(f"127.0.0.1:{self.addresses.remote}"))
        self._write("service.yaml", service_yaml(self.addresses.front))
        self.mark(ready=True)

    async def start_locals(self) -> None:
        """Start the local servers and wait until they answer. Raises DemoError."""
        await asyncio.gather(*(self._start_server(r.name, r.host, r.port) for r in self.replicas))

    def kill_locals(self) -> None:
        """SIGKILL every local server. The objects still say that they are ready, as they do at first in a cluster."""
        for replica in self.replicas:
            self._servers[replica.name].kill()

    def mark(self, ready: bool) -> None:
        """Write what the readiness probes found into the EndpointSlices."""
        self._write("endpoints.yaml", slices_yaml([replace(replica, ready=ready) for replica in self.replicas]))

    async def _start_server(self, name: str, host: str, port: int, prefix: str = "") -> None:
        command = [sys.executable, "-m", "demo.model_server", "--name", name, "--host", host, "--port", str(port)]
        server = self._processes.start(name, [*command, "--prefix", prefix])
        self._servers[name] = server
        await wait_for_answer(f"http://{host}:{port}/healthz", server)

    def _write(self, name: str, text: str) -> None:
        """Write a file at once: nobody reads half of it."""
        partial = self._folder / f".{name}.partial"
        partial.write_text(text, encoding="utf-8")
        partial.replace(self._folder / name)
