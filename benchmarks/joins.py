"""How long it takes until 1,000 Envoys that connect at once have everything: `make bench NAME=joins`.

Each has a connection of its own and asks as Envoy does: clusters, endpoints, listeners, routes, each when the one
before is there. Then all of them lose the server and come back within a moment, and each lacks one resource of each
type. Beside it go-control-plane serves the same bytes from its linear caches, to the same clients (`benchmarks/peer`,
in Go).

Both sides take turns in one run, since the machine has other things to do as well.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import click
import grpc
from envoy.service.discovery.v3 import discovery_pb2
from prometheus_client import CollectorRegistry

from controller.api.contract.route import Header, LocalBackend, Remote, Route, Split
from controller.programs.lifetime import collect_seldom
from tests.support.objects import a_model, a_slice
from tests.support.processes import Child
from tests.support.store import MemoryStore
from tests.tools.binaries import go
from xds_server.control_plane import ControlPlane, ControlPlaneOptions
from xds_server.snapshot.snapshot import SECRET
from xds_server.stream.server.services import PER_TYPE

PEER = Path(__file__).parent / "peer"
TOKEN = "benchmark"
_GO = (1, 26)
_PATIENCE = 300
_AT_MOST = 2.0
"""Times as long as go-control-plane."""
FETCHED = {
    type_url: f"/{service}/Delta{plural}" for type_url, (service, plural) in PER_TYPE.items() if type_url != SECRET
}
"""What is served of each type, and by which method."""


@dataclass(frozen=True, slots=True)
class Joins:
    """Seconds until all are in sync, when they know nothing and when they come back; and the server's CPU for both."""

    first: float
    again: float
    cpu: float


def control_plane_of(models: int) -> ControlPlane:
    """Return what serves so many models as `beamlit xds-server` does, to Envoys that carry `TOKEN`."""
    objects = []
    for number in range(models):
        name, host = f"model-{number}", f"backend-{number % 10}.example"
        header = Header(name="x-tenant", value="benchmark")
        remote = Remote(host=host, port=443, authority=host, path_prefix=f"/{name}", headers_to_add=(header,))
        local = LocalBackend(namespace="default", service=name)
        route = Route.between(port=10_000 + number, split=Split.away(30), local=local, remote=remote)
        raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
        objects.append(a_model(name).stored(status={"observedGeneration": 1, "route": raw}, version="1"))
        objects.append(a_slice(name).ready(*(f"10.0.0.{replica}" for replica in range(1, 6))).port(8000).stored())
    options = ControlPlaneOptions(node_token=TOKEN, gateway_address="127.0.0.1", health_checks=False)
    return ControlPlane(MemoryStore(objects), options, CollectorRegistry())


async def serve(models: int, folder: Path) -> None:
    """Serve so many models, and write what is served to the folder."""
    control_plane = control_plane_of(models)
    port = await control_plane.start("127.0.0.1:0")
    running = [asyncio.create_task(control_plane.run()), asyncio.create_task(follow(control_plane))]
    await _write_content(port, folder)
    (folder / "port").write_text(str(port))
    print("ready", flush=True)
    await asyncio.gather(*running)


async def follow(control_plane: ControlPlane) -> None:
    """Read the reports, as a controller does."""
    async for _ in control_plane.reports.follow():
        pass


async def _write_content(port: int, folder: Path) -> None:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", [("grpc.max_receive_message_length", -1)]) as channel:
        for type_url, method in FETCHED.items():
            asked = discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=["*"])
            call = channel.stream_stream(method)(iter([asked.SerializeToString()]))
            said = discovery_pb2.DeltaDiscoveryResponse.FromString(await call.read())
            content = discovery_pb2.DeltaDiscoveryResponse(type_url=type_url, resources=said.resources)
            (folder / f"{method.rpartition('/')[2]}.pb").write_bytes(content.SerializeToString())


def peer(folder: Path) -> Path:
    """Build the Go program; Go itself remembers what it built before."""
    binary = folder / "peer"
    subprocess.run([go(_GO), "build", "-trimpath", "-o", binary, "."], cwd=PEER, check=True)
    return binary


def joined(binary: Path, server: Child, folder: Path, envoys: int) -> Joins:
    """Have so many Envoys join a server, and once more."""
    address, before = f"127.0.0.1:{(folder / 'port').read_text()}", server.usage.cpu_seconds()
    command = [str(binary), "join", address, str(folder), TOKEN, str(envoys)]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=_PATIENCE).stdout
    first, again = map(float, said.split())
    return Joins(first, again, server.usage.cpu_seconds() - before)


def measured(models: int, envoys: int, rounds: int) -> Iterator[tuple[Joins, Joins]]:
    """Yield what each round measured: here, and with go-control-plane."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        binary = peer(folder)
        here = [sys.executable, "-m", "benchmarks.joins", "--models", models, "--serve", folder]
        there = [binary, "serve", folder]
        for _ in range(rounds):
            yield _with(here, binary, folder, envoys), _with(there, binary, folder, envoys)


def _with(serving: Sequence[object], binary: Path, folder: Path, envoys: int) -> Joins:
    server = Child(serving, folder / "log", says_ready=True)
    try:
        return joined(binary, server, folder, envoys)
    finally:
        server.stop()


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--models", type=click.IntRange(1, 5_000), default=100, show_default=True)
@click.option("--envoys", type=click.IntRange(1, 5_000), default=1000, show_default=True)
@click.option("--rounds", type=click.IntRange(1, 20), default=3, show_default=True)
@click.option("--serve", "folder", type=click.Path(path_type=Path), hidden=True)
def main(models: int, envoys: int, rounds: int, folder: Path | None) -> None:
    """Measure how long joining takes. Exit codes: 0 every goal is met, 1 a goal is missed."""
    if folder is not None:
        collect_seldom()
        asyncio.run(serve(models, folder))
        return
    click.echo(f"seconds until {envoys} Envoys have all of {models} models\n")
    click.echo("                         first    again   CPU of the server")
    ratios = []
    for here, there in measured(models, envoys, rounds):
        for name, one in (("xDS server", here), ("go-control-plane", there)):
            click.echo(f"{name:<20}{one.first:10.2f}{one.again:9.2f}{one.cpu:12.2f}")
        ratios.append((here.first / there.first, here.again / there.again, here.cpu / there.cpu))
    first, again, cpu = (median(column) for column in zip(*ratios, strict=True))
    click.echo(f"times as long       {first:10.2f}{again:9.2f}{cpu:12.2f}    (medians of {rounds} rounds)")
    goals = {"to join": first, "to come back": again}
    click.echo("")
    for what, ratio in goals.items():
        verdict = "met" if ratio <= _AT_MOST else "missed"
        click.echo(f"{verdict:<7}{what} takes at most {_AT_MOST} times as long as with go-control-plane: {ratio:.2f}")
    sys.exit(any(ratio > _AT_MOST for ratio in goals.values()))


if __name__ == "__main__":
    main()
