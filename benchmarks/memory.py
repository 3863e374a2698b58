"""What a model weighs in an Envoy: with the statistics that our bootstrap keeps, with all of them, and with none.

Three Envoys get the same models from an xDS server each, one after the other. What counts is what an Envoy has
allocated for so many models more.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.proxies.signals import judged
from controller.api.contract.route import Header, LocalBackend, Remote, Route, RouteKey, Split
from controller.api.kubernetes.endpoints import Replica
from controller.gateway.bootstrap import HostPort
from tests.support.envoy import Bootstrap, Envoy, as_it_is
from tests.support.network import Network, unused_port
from tests.support.waiting import until
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.assembly import Assembly
from xds_server.snapshot.snapshot import Resource
from xds_server.stream.server.server import XdsServer

_TOKEN = "the-token-of-this-benchmark"
_FIRST = 10
"""Models that are there before those that are weighed: what comes with the first one is no weight of a model."""
_GOAL_MB = 0.3
_GOAL_SHARE = 0.7
"""Of what a model weighs with everything."""
_QUIET, _NOTHING = 4, 20_000
"""An Envoy is at rest when its allocated bytes differed by less than the latter so many times in a row."""

_READINGS = 20
"""The least of so many counts."""


def _everything(bootstrap: Bootstrap) -> None:
    del bootstrap["stats_config"], bootstrap["deferred_stat_options"]


def _nothing(bootstrap: Bootstrap) -> None:
    bootstrap["stats_config"] = {"stats_matcher": {"reject_all": True}}


OURS, ALL, NONE = "those of our bootstrap", "all", "none"
KINDS: Mapping[str, Callable[[Bootstrap], None]] = {OURS: as_it_is, ALL: _everything, NONE: _nothing}


@dataclass(frozen=True, slots=True)
class Weight:
    """What an Envoy has: bytes allocated, bytes of the host's memory, and how many statistics."""

    allocated: float
    resident: float
    statistics: float

    def per_model_since(self, before: Weight, models: int) -> Weight:
        """Return what each of so many models added."""
        return Weight(
            (self.allocated - before.allocated) / models,
            (self.resident - before.resident) / models,
            (self.statistics - before.statistics) / models,
        )


async def weigh(name: str, change: Callable[[Bootstrap], None], models: int, folder: Path) -> Weight:
    """Start an Envoy, give it the models, and return what each of them weighs."""
    network, world = Network.unused(), Assembly[RouteKey]()
    translator = Translator(EnvoySettings(network.host(1), installation="benchmark"))
    server, xds = XdsServer(_TOKEN, lambda _: None), HostPort("127.0.0.1", unused_port())
    await server.start(str(xds))
    server.publish(world.snapshot, frozenset())
    envoy = Envoy.joining(name, _TOKEN, xds, folder, change)
    try:
        await envoy.started()

        async def with_models(first: int, last: int) -> Weight:
            """Serve them and wait until the Envoy allocates nothing more."""
            changed = world.replace([_model(translator, number, network) for number in range(first, last)])
            server.publish(world.snapshot, changed)

            async def are_served() -> bool:
                return len(await envoy.listeners()) >= last

            await until(are_served, f"{last} models", within=300)
            await settled(envoy)
            least = min([allocated async for allocated in several(envoy)])
            statistics = len((await envoy.all_stats()).splitlines())
            return Weight(least, envoy.process.usage.resident_bytes(), statistics)

        few = await with_models(0, _FIRST)
        return (await with_models(_FIRST, _FIRST + models)).per_model_since(few, models)
    finally:
        await envoy.stop()
        await server.stop(0)


async def settled(envoy: Envoy) -> None:
    """Wait until an Envoy has for a second allocated nothing that matters."""
    before, quiet = 0, 0
    while quiet < _QUIET:
        allocated = await envoy.memory()
        quiet = quiet + 1 if abs(allocated - before) < _NOTHING else 0
        before = allocated
        await asyncio.sleep(0.25)


async def several(envoy: Envoy) -> AsyncIterator[float]:
    """Read a few times what an Envoy has allocated: a part of it is what its checks of replicas take just now."""
    for _ in range(_READINGS):
        yield await envoy.memory()
        await asyncio.sleep(0.25)


def _model(translator: Translator, number: int, network: Network) -> tuple[RouteKey, tuple[Resource, ...]]:
    """Build a model with five replicas and a remote backend that it shares with a tenth of all."""
    key, host = RouteKey.of_model("default", f"model-{number}"), f"backend-{number % 10}.example"
    header = Header(name="x-tenant", value="benchmark")
    remote = Remote(host=network.host(3), port=9, authority=host, path_prefix=f"/m{number}", headers_to_add=(header,))
    local = LocalBackend(namespace="default", service=key.name)
    route = Route.between(port=10_000 + number, split=Split.away(30), local=local, remote=remote)
    replicas = tuple(Replica(network.host(10 + one), 8000, ready=True) for one in range(5))
    return key, translator.resources(key, route, replicas)


def verdicts(weights: Mapping[str, Weight]) -> Iterator[tuple[bool, str]]:
    """Judge: is a model as light as it is to be, and is it lighter than with everything?"""
    ours, everything = weights[OURS].allocated, weights[ALL].allocated
    yield ours <= _GOAL_MB * 1e6, f"at most {_GOAL_MB} MB allocated for a model: {ours / 1e6:.3f}"
    share = ours / everything
    yield share <= _GOAL_SHARE, f"at most {_GOAL_SHARE:.0%} of what it is with all statistics: {share:.0%}"


async def _run(models: int) -> int:
    click.echo(f"{'statistics':<24}{'a model':>10}{'allocated':>12}{'resident':>12}")
    weights = {}
    with tempfile.TemporaryDirectory(prefix="memory-") as folder:
        for name, change in KINDS.items():
            weights[name] = one = await weigh(name, change, models, Path(folder))
            sizes = f"{one.allocated / 1e6:>9.3f} MB{one.resident / 1e6:>9.3f} MB"
            click.echo(f"{name:<24}{one.statistics:>10.0f}{sizes}")
    click.echo()
    return judged(verdicts(weights))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--models", type=click.IntRange(10, 5000), default=200, show_default=True)
def main(models: int) -> None:
    """Measure what a model weighs in an Envoy. Exit codes: 0 every goal is met, 1 a goal is missed."""
    sys.exit(asyncio.run(_run(models)))


if __name__ == "__main__":
    main()
