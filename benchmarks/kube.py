"""The product on a Kubernetes API server: its start with 1,000 models, and what one change costs.

A real kube-apiserver with its etcd, `beamlit controller`, `beamlit xds-server` and an Envoy, twice: with few models and
with many, each in a namespace of its own. Changes are made in turns, so whatever disturbs one side disturbs the other.
They are made of ten models on both sides: the work is the same, what differs is how many models there are beside those.
Envoy checks every replica once a second, that is 5,000 checks a second with 1,000 models: it shares the CPUs with all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.cluster import servers as model_servers
from benchmarks.cluster.changes import CHANGED, Changing, alternate
from benchmarks.cluster.crowd import CONTROLLER, XDS_SERVER, Crowd, Tell
from benchmarks.cluster.figures import (
    LEGEND,
    PEERS,
    REPLICAS,
    Changes,
    Figures,
    as_object,
    growth_in_envoy,
    table,
    verdicts,
)
from benchmarks.proxies.envoys import CannotRunError
from benchmarks.proxies.signals import judged
from controller.gateway.process import NoEnvoyError
from controller.store.kube.client import KubeClient
from tests.support.kube.addresses import own_address
from tests.support.kube.api_server import ApiServer
from tests.support.kube.crds import install_crds
from tests.support.processes import ProcessEndedError
from tests.tools import binaries

INTERRUPTED = 130
OUTPUT = Path(__file__).with_name("output") / "kube.json"
_FEW = CHANGED
_WARM_UP = 10
"""Changes before those that count."""
_SETTLES = 8.0
_RESTS = 20.0
"""Seconds without any change: first until all is quiet, then measured."""
_LONGEST = 900.0

EPILOG = """\b
Exit codes:
  0    one change costs the same with few models and with many
  1    it does not
  2    could not run
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  make bench NAME=kube
  python -m benchmarks.kube --models 200 --changes 60      quicker, less certain
"""


@dataclass(frozen=True, slots=True)
class Options:
    """How many models there are, and how many changes are made of them."""

    models: int
    changes: int


async def run(options: Options, api: ApiServer) -> int:
    """Measure, print, and return the exit code. Raises CannotRunError and OSError."""
    begun = time.monotonic()

    def tell(words: str) -> None:
        click.echo(f"{time.monotonic() - begun:>5.0f} s  {words}")

    install_crds(api)
    servers = model_servers.unused_servers(own_address(), REPLICAS)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(model_servers.start(servers, api.folder).kill)
        client = await stack.enter_async_context(KubeClient.from_environment(api.kubeconfig))
        crowds = [
            await stack.enter_async_context(Crowd.in_namespace(api, client, models))
            for models in (_FEW, options.models)
        ]
        for crowd in crowds:
            tell(f"writing the objects of {crowd.models} models")
            await crowd.write(servers, tell)
        figures = []
        for crowd in crowds:
            tell(f"starting the programs for {crowd.models} models")
            figures.append(Figures(crowd.models, await stack.enter_async_context(crowd.served(tell))))
            tell(f"{crowd.models} models are programmed, after {figures[-1].start.last_programmed:.1f} s")
        await _at_rest(crowds, figures, tell)
        tell(f"making {options.changes} changes of each")
        for one, changes in zip(figures, await _changed(crowds, options, by_hand=False), strict=True):
            one.decided = changes
        for crowd in crowds:
            await crowd.without_controller()
        tell(f"making {options.changes} changes of each by hand, without the controllers")
        for one, changes in zip(figures, await _changed(crowds, options, by_hand=True), strict=True):
            one.by_hand = changes
        tell("done")
    return _told(figures)


async def _at_rest(crowds: Sequence[Crowd], figures: Sequence[Figures], tell: Tell) -> None:
    tell(f"at rest for {_SETTLES + _RESTS:.0f} s")
    await asyncio.sleep(_SETTLES)
    begun, before = time.perf_counter(), [crowd.cpu() for crowd in crowds]
    await asyncio.sleep(_RESTS)
    for crowd, one, used in zip(crowds, figures, before, strict=True):
        passed = time.perf_counter() - begun
        one.rest = {name: (now - used[name]) / passed for name, now in crowd.cpu().items()}
        one.memory = crowd.memory()


async def _changed(crowds: Sequence[Crowd], options: Options, *, by_hand: bool) -> Sequence[Changes]:
    warm = [Changing(crowd, by_hand=by_hand, seed=1) for crowd in crowds]
    for one in warm:
        await one.begin()
    await alternate(warm, _WARM_UP)
    changing = [Changing(crowd, by_hand=by_hand, seed=2) for crowd in crowds]
    for one in changing:
        await one.begin()
    return await alternate(changing, options.changes)


def _told(figures: Sequence[Figures]) -> int:
    click.echo(f"\n{table(figures)}\n\n{LEGEND}\n{PEERS}\n")
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(json.dumps(as_object(figures), indent=1))
    code = judged(verdicts(figures, (CONTROLLER, XDS_SERVER)))
    click.echo(growth_in_envoy(figures))
    return code


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--models",
    type=click.IntRange(20, 5000),
    default=1000,
    show_default=True,
    help=f"How many there are where there are many; where there are few it is {_FEW}.",
)
@click.option(
    "--changes",
    type=click.IntRange(4, 2000),
    default=200,
    show_default=True,
    help="How many are measured of each kind, with few models and with many.",
)
def main(models: int, changes: int) -> None:
    """Measure the product on a real API server, with many models and with few.

    Start of the programs until every model is programmed, memory, CPU at rest, and single changes from the request that
    makes one until a client's request feels it; then the same with `status.route` written by hand. Prints a table and
    writes benchmarks/output/kube.json. Takes about five minutes with 1,000 models, 15 at most.
    """
    sys.exit(_bounded(Options(models, changes - changes % 2)))


def _bounded(options: Options) -> int:
    try:
        for program in (binaries.etcd, binaries.kube_apiserver, binaries.kubectl):
            program()
        with tempfile.TemporaryDirectory(prefix="kube-") as folder, ApiServer.running(Path(folder)) as api:
            return asyncio.run(_until_signalled(options, api))
    except KeyboardInterrupt:
        return INTERRUPTED


async def _until_signalled(options: Options, api: ApiServer) -> int:
    """Run; SIGINT and SIGTERM cancel it, and it takes its processes down with it."""
    benchmark = asyncio.create_task(run(options, api))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, benchmark.cancel)
    try:
        return await asyncio.wait_for(benchmark, _LONGEST)
    except asyncio.CancelledError:
        click.echo("\ninterrupted; every process of the benchmark is gone", err=True)
        return INTERRUPTED
    except (CannotRunError, NoEnvoyError, ProcessEndedError, OSError, TimeoutError) as error:
        click.secho(f"\ncould not run: {error or type(error).__name__}", fg="red", err=True)
        return 2


if __name__ == "__main__":
    main()
