"""What a cluster has besides the product: model servers, the kubelet that probes them, and the objects in a folder."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from demo.addresses import Addresses
from demo.completion import PATH
from demo.credentials import SERVER_NAME, Credentials
from demo.files import write_at_once
from demo.journal import begun_at, end_journal, flight_of, in_flight_now, read_journal, spans_of, unfinished
from demo.manifests import (
    PLACES,
    Replica,
    deployment_yaml,
    model_yaml,
    secrets_yaml,
    service_yaml,
    slices_yaml,
)
from demo.outcome import Kill
from demo.probe import wait_for_answer
from tests.support.load import Step, sum_of
from tests.support.processes import Child, Children

READINESS_PERIOD = 1.0
"""Seconds until the readiness probe notices a dead server."""
_REMOTE = "remote"
_REMOTE_PLACES = 10_000


class Cluster:
    """Three replicas of one model, a remote backend with its token endpoint, and the folder of YAML about them."""

    def __init__(self, home: Path, addresses: Addresses, processes: Children) -> None:
        self._home = home
        self._processes = processes
        self._servers: dict[str, Child] = {}
        self._credentials = Credentials.make(home / "credentials")
        self.folder = home / "manifests"
        self.folder.mkdir()
        self.addresses = addresses
        self.replicas = tuple(
            Replica(f"local-{number}", host, port) for number, (host, port) in enumerate(addresses.replicas, 1)
        )
        self.capacity = PLACES * len(self.replicas)
        """How many requests all replicas together work on at a time."""

    @property
    def front(self) -> str:
        """Where clients find the model: Envoy, on the node port of the Service."""
        return f"http://127.0.0.1:{self.addresses.front}"

    @property
    def url(self) -> str:
        """Where clients send their requests."""
        return f"{self.front}{PATH}"

    async def start(self) -> None:
        """Start every server and write every object. Raises DemoError when one does not answer."""
        await asyncio.gather(self.start_locals(), self._start_remote(), self._start_tokens())
        tokens = f"http://127.0.0.1:{self.addresses.tokens}/token"
        self._write("model.yaml", model_yaml(self._remote, tokens))
        self._write("service.yaml", service_yaml(self.addresses.front))
        self._write("deployment.yaml", deployment_yaml(len(self.replicas)))
        self._write("secrets.yaml", secrets_yaml(self._credentials))
        self.mark(ready=True)

    async def start_locals(self) -> None:
        """Start the local servers and wait until they answer. Raises DemoError."""
        await asyncio.gather(*map(self._start_local, self.replicas))

    def kill_locals(self) -> Kill:
        """SIGKILL every local server; moments are `time.monotonic()`.

        The objects still say that they are ready, as they do at first in a cluster.
        """
        return self._kill("local", self._locals)

    def kill_remote(self) -> Kill:
        """SIGKILL the remote backend."""
        return self._kill("remote", [_REMOTE])

    def mark(self, ready: bool) -> None:
        """Write what the readiness probes found into the EndpointSlices."""
        self._write("endpoints.yaml", slices_yaml([replace(replica, ready=ready) for replica in self.replicas]))

    def local_flight(self) -> tuple[Step, ...]:
        """Return what all replicas had in flight together, as they wrote it down themselves."""
        return sum_of(flight_of(read_journal(self._journal(name))) for name in self._locals)

    def local_answers(self) -> Mapping[str, tuple[float, float]]:
        """Return from when to when each answer was in flight at a replica, as they wrote it down themselves."""
        spans = (spans_of(read_journal(self._journal(name))) for name in self._locals)
        return {answer: span for one in spans for answer, span in one.items()}

    def in_flight(self) -> tuple[int, int]:
        """Return how many requests all replicas, and the remote backend, have in flight now."""
        return sum(in_flight_now(self._journal(name)) for name in self._locals), in_flight_now(self._journal(_REMOTE))

    def begun(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Return when each request came to any replica, and to the remote backend, as they wrote it down themselves."""
        local = (moment for name in self._locals for moment in begun_at(read_journal(self._journal(name))))
        return tuple(sorted(local)), begun_at(read_journal(self._journal(_REMOTE)))

    @property
    def _remote(self) -> str:
        return f"127.0.0.1:{self.addresses.remote}"

    @property
    def _locals(self) -> Sequence[str]:
        return [replica.name for replica in self.replicas]

    def _kill(self, side: str, names: Sequence[str]) -> Kill:
        begin = time.monotonic()
        for name in names:
            self._servers[name].send(signal.SIGKILL)
        for name in names:
            self._servers[name].kill()  # waits
        lost = frozenset[str]().union(*(unfinished(read_journal(self._journal(name))) for name in names))
        at = round(time.monotonic(), 6)  # as exact as a journal is
        for name in names:
            end_journal(self._journal(name), at)
        return Kill(side, begin, at, lost)

    async def _start_local(self, replica: Replica) -> None:
        address = f"{replica.host}:{replica.port}"
        server = self._start_model(replica.name, address, PLACES)
        await wait_for_answer(f"http://{address}/healthz", server)

    async def _start_remote(self) -> None:
        credentials = self._credentials
        server = self._start_model(_REMOTE, self._remote, _REMOTE_PLACES, "--remote", str(credentials.folder))
        tls = credentials.for_client()
        await wait_for_answer(f"https://{self._remote}/healthz", server, tls=tls, server_name=SERVER_NAME)

    async def _start_tokens(self) -> None:
        command = ["--port", str(self.addresses.tokens), "--credentials", str(self._credentials.folder)]
        server = self._processes.start("token-endpoint", [sys.executable, "-m", "demo.token_server", *command])
        await wait_for_answer(f"http://127.0.0.1:{self.addresses.tokens}/healthz", server)

    def _start_model(self, name: str, address: str, places: int, *more: str) -> Child:
        command = [sys.executable, "-m", "demo.model_server", "--name", name, "--address", address]
        command += ["--places", str(places), "--journal", str(self._journal(name)), *more]
        self._servers[name] = self._processes.start(name, command)
        return self._servers[name]

    def _journal(self, name: str) -> Path:
        return self._home / f"{name}.flight"

    def _write(self, name: str, text: str) -> None:
        write_at_once(self.folder / name, text)
