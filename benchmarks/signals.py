"""What measuring costs, and how soon a changed sample is a changed weight: `make bench NAME=signals`.

A real API server with its aggregation layer, the real metrics-server, which scrapes a kubelet of ours, the real
Prometheus, `beamlit controller`, `beamlit xds-server` and an Envoy: with 10, 100 and 1,000 models, each with a metric
of one kind (`benchmarks/cluster/sources.py`). First all is at rest; then a few models are overloaded, one after another
within an interval, and a client of each asks until it is answered by the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import click

from benchmarks.cluster import servers as model_servers
from benchmarks.cluster.crowd import CONTROLLER, Crowd, Tell
from benchmarks.cluster.objects import Servers, model_name, objects_of
from benchmarks.cluster.sources import KINDS, Source, sources
from benchmarks.proxies.envoys import CannotRunError
from benchmarks.proxies.signals import INTERRUPTED, judged, until_signalled
from controller.store.kube.client import KubeClient
from tests.support.kube.addresses import own_address
from tests.support.kube.crds import install_crds
from tests.support.kube.metrics_apis import MetricsApis
from tests.support.load.connection import Connections
from tests.support.objects import AModel, KubeObject
from tests.tools import binaries

OUTPUT = Path(__file__).with_name("output") / "signals.json"
TOLERATED = 0.05
"""Seconds, beyond the interval."""
MODELS = {"Resource": (10, 100, 1000)}
"""How many, unless it is said; of other kinds 10 and 100."""
_RESTS = 30.0
_CHANGED = 8
"""Models that are overloaded, of however many there are."""
_WITHIN = 120.0
_BETWEEN_LOOKS = 0.02

EPILOG = """\b
Exit codes:
  0    every changed sample was a changed weight within the poll interval and 50 ms
  1    one was not
  2    could not run
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  make bench NAME=signals
  python -m benchmarks.signals --kind Scrape --models 10     quicker
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured of a kind with so many models: parts of a core, bytes, requests a second, and seconds."""

    kind: str
    models: int
    cpu: float
    memory: int
    requests: float
    asks: str
    interval: float
    delays: tuple[float, ...]


async def run(kinds: Sequence[str], models: Sequence[int], folder: Path) -> int:
    """Measure, print, and return the exit code. Raises CannotRunError and OSError."""
    begun = time.monotonic()

    def tell(words: str) -> None:
        click.echo(f"{time.monotonic() - begun:>5.0f} s  {words}")

    with MetricsApis.running(folder) as apis:
        install_crds(apis.server)
        servers = model_servers.unused_servers(own_address(), 1)
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(model_servers.start(servers, apis.server.folder).kill)
            client = await stack.enter_async_context(KubeClient.from_environment(apis.server.kubeconfig))
            figures = []
            for kind in kinds:
                async with sources(apis, folder)[kind]() as source:
                    for number in models or MODELS.get(kind, (10, 100)):
                        async with Crowd.in_namespace(apis.server, client, number, kind.lower()) as crowd:
                            figures.append(await _measured(crowd, source, servers, tell))
    return _told(figures)


async def _measured(crowd: Crowd, source: Source, servers: Servers, tell: Tell) -> Figures:
    tell(f"{source.kind}: writing the objects of {crowd.models} models")
    await crowd.write(servers, tell, partial(measured_objects, source))
    await source.prepare(crowd)
    async with crowd.served(tell, *source.options(crowd.folder)):
        tell(f"{crowd.models} models are programmed; at rest for {source.settles + _RESTS:.0f} s")
        await asyncio.sleep(source.settles)
        begun, cpu, requests = time.perf_counter(), crowd.cpu()[CONTROLLER], await source.asked(crowd)
        await asyncio.sleep(_RESTS)
        passed = time.perf_counter() - begun
        used, asked = crowd.cpu()[CONTROLLER] - cpu, await source.asked(crowd) - requests
        memory = crowd.memory()[CONTROLLER]
        changed = [model_name(at * crowd.models // _CHANGED) for at in range(min(_CHANGED, crowd.models))]
        tell(f"{len(changed)} of them are overloaded")
        async with asyncio.TaskGroup() as group:
            delays = [group.create_task(_delay(crowd, source, name)) for name in changed]
            # One after another, for a sample may change at any time between two questions, and in another order than
            # they were asked for first.
            for name in random.Random(1).sample(changed, len(changed)):
                source.rise(crowd, name)
                await asyncio.sleep(source.interval / len(changed))
        await source.rest(crowd)
        return Figures(
            kind=source.kind,
            models=crowd.models,
            cpu=used / passed,
            memory=memory,
            requests=asked / passed,
            asks=source.asks,
            interval=source.interval,
            delays=tuple(one.result() for one in delays),
        )


def measured_objects(source: Source, number: int, servers: Servers) -> Sequence[KubeObject]:
    """List what there is of one model, which sends everything away while its metric is at its target."""
    *others, model = objects_of(number, servers)
    assert isinstance(model, AModel)
    return (*others, model.offloading(percentage=100).measuring(dict(source.metric(model_name(number)))))


async def _delay(crowd: Crowd, source: Source, name: str) -> float:
    """Say how long it takes from when anybody may read the new sample until a client is answered by the other side."""
    connections = Connections(crowd.site.gateway, crowd.seen.ports[name], keepalive=True)
    try:
        async with asyncio.timeout(_WITHIN):
            readable = asyncio.create_task(source.readable(crowd, name))
            effective = asyncio.create_task(_left(connections))
            return await effective - await readable
    except TimeoutError:
        raise CannotRunError(f"{name} was overloaded, and no request left within {_WITHIN:.0f} s") from None
    finally:
        connections.close()


async def _left(connections: Connections) -> float:
    """Send one request after another until the remote backend answers; return when it did. None may fail."""
    while True:
        answer = await connections.exchange(b"GET / HTTP/1.1\r\nhost: benchmark\r\n\r\n")
        if answer.status != 200:
            raise CannotRunError(f"a request was answered with {answer.status}")
        if answer.route == "remote":
            return time.perf_counter()
        await asyncio.sleep(_BETWEEN_LOOKS)


def _told(figures: Sequence[Figures]) -> int:
    click.echo(
        "\nkind       models   CPU of the controller   resident   questions a second   "
        "from a sample to the weight: median, longest"
    )
    for one in figures:
        click.echo(
            f"{one.kind:<8}   {one.models:6}   {one.cpu:21.2%}   {one.memory / 2**20:5.0f} MB   "
            f"{one.requests:5.1f} {one.asks:<12}   {statistics.median(one.delays):10.2f} s {max(one.delays):10.2f} s"
        )
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps([asdict(one) for one in figures], indent=1))
    click.echo("\nCPU is of one core.\n")
    return judged(verdicts(figures))


def verdicts(figures: Sequence[Figures]) -> Sequence[tuple[bool, str]]:
    """Judge each kind: whether its goal is met, and what was measured."""
    found = []
    for kind in dict.fromkeys(one.kind for one in figures):
        of_kind = [one for one in figures if one.kind == kind]
        longest, most = max(max(one.delays) for one in of_kind), of_kind[0].interval + TOLERATED
        words = f"{kind}, from a sample that can be read until the weight: {longest:.2f} s at the longest"
        found.append((longest <= most, f"{words}, at most {most:.2f} s"))
    return found


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--kind",
    "kinds",
    type=click.Choice(KINDS),
    multiple=True,
    default=KINDS,
    show_default=True,
    help="Of which metrics; may be given several times.",
)
@click.option(
    "--models",
    type=click.IntRange(1, 5000),
    multiple=True,
    help="How many models; may be given several times. By default 10 and 100, of Resource 1000 as well.",
)
def main(kinds: tuple[str, ...], models: tuple[int, ...]) -> None:
    """Measure the cost of one metric for each model, and how soon a changed sample has its effect.

    Prints a table and writes benchmarks/output/signals.json. Takes about twelve minutes.
    """
    sys.exit(_bounded(kinds, models))


def _bounded(kinds: Sequence[str], models: Sequence[int]) -> int:
    programs = (binaries.etcd, binaries.kube_apiserver, binaries.metrics_server, binaries.metrics_adapter)
    try:
        for program in (*programs, binaries.prometheus):
            program()
        with tempfile.TemporaryDirectory(prefix="signals-") as folder:
            return asyncio.run(until_signalled(run(kinds, models, Path(folder))))
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    main()
