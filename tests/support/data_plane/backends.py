"""The replicas of a model and its remote backend: model servers that can be killed and come back."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from controller.api.kubernetes.endpoints import Replica
from tests.support.data_plane.ledger import Ledger
from tests.support.data_plane.model import Model
from tests.support.forked import ForkedModelServer
from tests.support.network import BACKEND_PORT, Network


class Backend:
    """One model server at an address that stays its own while it is dead; with `tls` (see its program) over TLS."""

    def __init__(self, name: str, host: str, logs: Path, tls: tuple[Path, ...] = (), port: int = BACKEND_PORT) -> None:
        self.name, self.host, self.port = name, host, port
        self.ledger = Ledger(name)
        self._tls = tls
        self._log = logs / f"{name}.log"
        self._child: ForkedModelServer | None = None

    def start(self) -> None:
        """Start it; it accepts connections when this returns."""
        where = (self.name, self.host, self.port, self.ledger.path)
        self._child = ForkedModelServer((*where, *self._tls), self._log)

    def show(self, *tls: Path) -> None:
        """SIGKILL it and start it with another certificate."""
        self.kill()
        self._tls = tls
        self.start()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None

    def revive(self) -> None:
        if self._child is None:
            self.start()

    def count(self, model: Model | None = None) -> int:
        """How many requests it got since its start, health checks aside: all, or those of one model."""
        return int(self._ask(f"count{self._of(model)}"))

    def spans(self, model: Model | None = None) -> list[tuple[float, float, bool]]:
        """When each request since this was asked last began and ended, on the host's clock, and whether by an answer.

        All, or those of one model.
        """
        return [(begin, end, answered) for begin, end, answered in json.loads(self._ask(f"spans{self._of(model)}"))]

    def seen(self, probe: str) -> list[dict[str, Any]]:
        """The requests that it got with this `probe` header."""
        seen: list[dict[str, Any]] = json.loads(self._ask(f"seen/{probe}"))
        return seen

    def report_health(self, status: int) -> None:
        """Set what its health check answers; requests are answered as before."""
        self._ask("health", str(status).encode())

    def behave(self, behaviour: str) -> None:
        """Set how requests are answered that choose nothing themselves, see its program; empty for as usual."""
        self._ask("behaviour", behaviour.encode())

    def release(self, name: str) -> None:
        """Answer the requests that it holds by this name, see its program."""
        self._ask("release", name.encode())

    def received(self) -> int:
        """How many bytes it received since its start."""
        return int(self._ask("received"))

    @property
    def alive(self) -> bool:
        return self._child is not None

    def _of(self, model: Model | None) -> str:
        """Tell the requests of a model by their Host."""
        if model is None:
            return ""
        return f"/{model.authority if self.name == 'remote' else model.host}"

    def _ask(self, what: str, body: bytes | None = None) -> bytes:
        url = f"http://{self.host}:{self.port}/-/{what}"
        request = urllib.request.Request(url, body, {"connection": "close"}, method="GET" if body is None else "PUT")
        with urllib.request.urlopen(request, timeout=120) as answer:
            return bytes(answer.read())


class Backends:
    """Three replicas and one remote backend."""

    def __init__(self, network: Network, logs: Path) -> None:
        self.local = tuple(Backend(f"local-{number}", network.host(number + 1), logs) for number in (1, 2, 3))
        self.remote = Backend("remote", network.host(10), logs)

    @property
    def all(self) -> tuple[Backend, ...]:
        return (*self.local, self.remote)

    @property
    def replicas(self) -> tuple[Replica, ...]:
        """The replicas as EndpointSlices would list them, all ready."""
        return tuple(Replica(one.host, one.port, ready=True) for one in self.local)

    def seen(self, probe: str) -> list[dict[str, Any]]:
        """What reached any backend that is alive with this `probe` header."""
        return [record for one in self.all if one.alive for record in one.seen(probe)]

    def count_local(self, model: Model) -> int:
        """How many requests of a model the replicas got."""
        return sum(one.count(model) for one in self.local)

    @contextmanager
    def running(self) -> Iterator[Backends]:
        try:
            for one in self.all:
                one.start()
            yield self
        finally:
            for one in self.all:
                one.kill()

    @contextmanager
    def killed(self, *backends: Backend) -> Iterator[None]:
        """SIGKILL some; they are back when the block ends."""
        for one in backends:
            one.kill()
        try:
            yield
        finally:
            for one in backends:
                one.revive()


@contextmanager
def reporting_unhealthy(servers: Sequence[Backend]) -> Iterator[None]:
    """Let the health checks of these servers fail in the block; requests are answered as before."""
    for one in servers:
        one.report_health(503)
    try:
        yield
    finally:
        for one in servers:
            one.report_health(200)
