"""What measuring costs, and how soon a changed sample is a changed weight: `make bench NAME=signals`.

A real API server with its aggregation layer, the real metrics-server, which scrapes a kubelet of ours, `beamlit
controller`, `beamlit xds-server` and an Envoy: with 10, 100 and 1,000 models, each with a metric of type Resource and
a pod of its own. First all is at rest; then the CPU of a few models rises, and a client of each asks until it is
answered by the other side.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.cluster import servers as model_servers
from benchmarks.cluster.crowd import CONTROLLER, Crowd, Tell
from benchmarks.cluster.objects import Servers, model_name, objects_of
from benchmarks.proxies.envoys import CannotRunError
from benchmarks.proxies.signals import INTERRUPTED, until_signalled
from controller.api.schema.scalars import number_of
from controller.api.timing import REAL
from controller.store.kube.client import MERGE, KubeClient
from tests.support.kube.addresses import own_address
from tests.support.kube.crds import install_crds
from tests.support.kube.kubelet import NODE
from tests.support.kube.metrics_apis import RESOLUTION, MetricsApis
from tests.support.load.connection import Connections
from tests.support.objects import AModel, KubeObject
from tests.tools import binaries

OUTPUT = Path(__file__).with_name("output") / "signals.json"
INTERVAL = REAL.signals.kubernetes.every
TOLERATED = 0.05
"""Seconds, beyond the interval."""
_REQUESTED, _QUIET, _BUSY, _BREACHED = 1000, 200, 950, 900
"""Millicores: what each pod requests, what it uses at rest and when its model is overloaded, and from when on it is."""
_SETTLES, _RESTS = 2 * RESOLUTION + 10.0, 30.0
_CHANGED = 8
"""Models whose CPU rises, of however many there are."""
_WITHIN = 120.0
_AT_ONCE = 16
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
  python -m benchmarks.signals --models 10 --models 200     quicker
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What was measured with so many models: parts of a core, bytes, requests a second, and seconds."""

    models: int
    cpu: float
    memory: int
    requests: float
    delays: tuple[float, ...]


async def run(models: Sequence[int], folder: Path) -> int:
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
            for number in models:
                async with Crowd.in_namespace(apis.server, client, number) as crowd:
                    figures.append(await _measured(crowd, apis, servers, tell))
    return _told(figures)


async def _measured(crowd: Crowd, apis: MetricsApis, servers: Servers, tell: Tell) -> Figures:
    tell(f"writing the objects of {crowd.models} models")
    await crowd.write(servers, tell, measured_objects)
    await _write_pods(crowd, apis)
    async with crowd.served(tell):
        tell(f"{crowd.models} models are programmed; at rest for {_SETTLES + _RESTS:.0f} s")
        await asyncio.sleep(_SETTLES)
        begun, cpu, requests = time.perf_counter(), crowd.cpu()[CONTROLLER], await _requests(crowd)
        await asyncio.sleep(_RESTS)
        passed = time.perf_counter() - begun
        rest = Figures(
            models=crowd.models,
            cpu=(crowd.cpu()[CONTROLLER] - cpu) / passed,
            memory=crowd.memory()[CONTROLLER],
            requests=(await _requests(crowd) - requests) / passed,
            delays=(),
        )
        changed = [at * crowd.models // _CHANGED for at in range(min(_CHANGED, crowd.models))]
        tell(f"the CPU of {len(changed)} of them rises")
        async with asyncio.TaskGroup() as group:
            delays = [group.create_task(_delay(crowd, apis, model_name(number))) for number in changed]
            for number in changed:
                apis.kubelet.uses(crowd.site.namespace, model_name(number), millicores=_BUSY)
        apis.kubelet.forget(crowd.site.namespace)
        return Figures(rest.models, rest.cpu, rest.memory, rest.requests, tuple(one.result() for one in delays))


def measured_objects(number: int, servers: Servers) -> Sequence[KubeObject]:
    """List what there is of one model, which sends everything away while its CPU is at its target."""
    *others, model = objects_of(number, servers)
    assert isinstance(model, AModel)
    target = {"type": "Utilization", "averageUtilization": 90}
    metric = {"type": "Resource", "resource": {"name": "cpu", "target": target}}
    return (*others, model.offloading(percentage=100).measuring(metric))


async def _write_pods(crowd: Crowd, apis: MetricsApis) -> None:
    """Write a pod for each model, as old as the product believes it."""
    numbers = iter(range(crowd.models))
    namespace = crowd.site.namespace
    pods = f"/api/v1/namespaces/{namespace}/pods"

    async def writing() -> None:
        for number in numbers:
            name = model_name(number)
            await crowd.client.request("POST", pods, body=_pod(name))
            path = f"{pods}/{name}/status"
            await crowd.client.request("PATCH", path, body=_running(), content_type=MERGE)
            apis.kubelet.uses(namespace, name, millicores=_QUIET)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(writing())


def _pod(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": "model", "resources": {"requests": {"cpu": f"{_REQUESTED}m"}}}
    metadata = {"name": name, "labels": {"run": name}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {"nodeName": NODE, "containers": [container]},
    }


def _running() -> dict[str, Any]:
    long_ago = "2026-01-01T00:00:00Z"
    ready = {"type": "Ready", "status": "True", "lastTransitionTime": long_ago}
    return {"status": {"phase": "Running", "startTime": long_ago, "conditions": [ready]}}


async def _requests(crowd: Crowd) -> float:
    """Count the requests that the controller has made to the API server so far."""
    (controller,) = crowd.site.controllers
    return await controller.metric("beamlit_kube_requests_total")


async def _delay(crowd: Crowd, apis: MetricsApis, name: str) -> float:
    """Say how long it takes from when anybody may read the new sample until a client is answered by the other side."""
    connections = Connections(crowd.site.gateway, crowd.seen.ports[name], keepalive=True)
    try:
        async with asyncio.timeout(_WITHIN):
            readable = asyncio.create_task(_readable(crowd, name))
            effective = asyncio.create_task(_left(connections))
            return await effective - await readable
    except TimeoutError:
        raise CannotRunError(f"the CPU of {name} rose, and no request left within {_WITHIN:.0f} s") from None
    finally:
        connections.close()


async def _readable(crowd: Crowd, name: str) -> float:
    """Ask metrics.k8s.io until it says that a pod is busy; return when it did."""
    path = f"/apis/metrics.k8s.io/v1beta1/namespaces/{crowd.site.namespace}/pods/{name}"
    while True:
        found = await crowd.client.request("GET", path)
        if number_of(found["containers"][0]["usage"]["cpu"]) * 1000 >= _BREACHED:
            return time.perf_counter()
        await asyncio.sleep(_BETWEEN_LOOKS)


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
        "\nmodels   CPU of the controller   resident   API requests   from a sample to the weight: median, longest"
    )
    for one in figures:
        click.echo(
            f"{one.models:6}   {one.cpu:19.2%}   {one.memory / 2**20:5.0f} MB   {one.requests:10.1f}/s"
            f"   {statistics.median(one.delays):10.2f} s {max(one.delays):10.2f} s"
        )
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps([asdict(one) for one in figures], indent=1))
    often = f"A new sample is there every {RESOLUTION} s, and asked for every {INTERVAL:.0f} s."
    click.echo(f"\nCPU is of one core. {often}\n")
    longest = max(max(one.delays) for one in figures)
    good = longest <= INTERVAL + TOLERATED
    words = f"from a sample that can be read until the weight: {longest:.2f} s at the longest"
    click.echo(f"{'met' if good else 'missed':<7}{words}, at most {INTERVAL + TOLERATED:.2f} s")
    return 0 if good else 1


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--models",
    type=click.IntRange(1, 5000),
    multiple=True,
    default=(10, 100, 1000),
    show_default=True,
    help="How many models; may be given several times.",
)
def main(models: tuple[int, ...]) -> None:
    """Measure the cost of one metric of type Resource for each model, and how soon a changed sample has its effect.

    Prints a table and writes benchmarks/output/signals.json. Takes about seven minutes.
    """
    sys.exit(_bounded(models))


def _bounded(models: Sequence[int]) -> int:
    try:
        for program in (binaries.etcd, binaries.kube_apiserver, binaries.metrics_server, binaries.metrics_adapter):
            program()
        with tempfile.TemporaryDirectory(prefix="signals-") as folder:
            return asyncio.run(until_signalled(run(models, Path(folder))))
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    main()
