"""What one more way in costs an Envoy: all models on one port, told apart by host, with ten models there or a thousand.

Three ways are compared, each in an Envoy of its own. *Own ports*: the models are called on their ports alone. *Scoped
routes*: what is served; each host leads to the route configuration that is there already. *Virtual hosts*: one route
configuration for the shared port with a virtual host for each model, which every change of one sends and builds anew.

What counts is the CPU of the Envoy, from a new split to its acknowledgement. All Envoys are there at once and take
turns, so whatever disturbs one disturbs the others, and a ratio is the median of those of the rounds. The models have
no replicas: to check those of a thousand models costs an Envoy more, in the time of a change, than the change.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import click
from envoy.config.route.v3.route_pb2 import RouteConfiguration

from benchmarks.memory import settled
from benchmarks.proxies.signals import judged
from controller.api.contract.route import LocalBackend, Remote, Route, RouteKey, Split
from controller.gateway.bootstrap import HostPort
from tests.support.envoy import Envoy
from tests.support.network import Network, unused_port
from tests.support.waiting import until
from xds_server.resources import names
from xds_server.resources.hosts import forms_of
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.assembly import Assembly
from xds_server.snapshot.snapshot import LISTENER, ROUTE, SCOPED_ROUTE, Resource, ResourceKey
from xds_server.stream.server.server import XdsServer

_TOKEN = "the-token-of-this-benchmark"
OWN_PORTS, SCOPED_ROUTES, VIRTUAL_HOSTS = "own ports", "scoped routes", "virtual hosts"
WAYS = (OWN_PORTS, SCOPED_ROUTES, VIRTUAL_HOSTS)
_FEW = 10
_ROUNDS = 40
_SHARED_PORT = 8080
_ONE_CONFIGURATION = RouteKey.of_model("", "all-hosts")
_AT_MOST = 2.0
"""Times the CPU of a change with the fewest models, and of one without the shared port."""
_AT_MOST_MB = 0.1
"""Allocated for the hosts of one model."""


@dataclass(slots=True)
class Figures:
    """With so many models: bytes that the Envoy allocated, bytes that a change sends, its CPU in seconds by round."""

    allocated: int
    sent: int = 0
    changes: list[float] = field(default_factory=list)

    def ratio_to(self, other: Figures) -> float:
        """Return how many times the CPU a change takes here: the median of the rounds, in which both took turns."""
        return median(here / there for here, there in zip(self.changes, other.changes, strict=True))


class Site:
    """An xDS server, and models on it that are called in one of the ways."""

    def __init__(self, way: str, network: Network) -> None:
        self._way = way
        self._network = network
        port = None if way == OWN_PORTS else _SHARED_PORT
        self._translator = Translator(EnvoySettings(network.host(1), installation="benchmark", shared_port=port))
        self._world = Assembly[RouteKey]()
        self._hosts = RouteConfiguration(name="all-hosts")
        self._changed: list[tuple[ResourceKey, str]] = []
        self.server = XdsServer(_TOKEN, lambda _: None)
        self.server.publish(self._world.snapshot, frozenset())

    def serve(self, numbers: Sequence[int], away: int) -> int:
        """Give models this split; return how many bytes of resources differ."""
        changes = [self._model(number, away) for number in numbers]
        if self._way == VIRTUAL_HOSTS:
            changes.append((_ONE_CONFIGURATION, (self._one_configuration(),)))
        changed = self._world.replace(changes)
        self.server.publish(self._world.snapshot, changed)
        resources = [one for key in changed if (one := self._world.snapshot.find(key))]
        self._changed = [(one.key, one.version) for one in resources]
        return sum(len(one.body) for one in resources)

    async def acknowledged(self) -> None:
        """Wait until the Envoy has acknowledged all that was changed last."""

        async def has_all() -> bool:
            assert not [one.rejections for one in self.server.clients() if one.rejections]
            holdings = self.server.holds(self._changed)
            return bool(holdings) and all(one.complete for one in holdings)

        await until(has_all, "the Envoy has all of it", within=300)

    def _model(self, number: int, away: int) -> tuple[RouteKey, tuple[Resource, ...]]:
        key = RouteKey.of_model("default", f"model-{number}")
        remote = Remote(host=self._network.host(3), port=9, authority="backend", path_prefix=f"/{number}")
        local = LocalBackend(namespace="default", service=key.name)
        route = Route.between(port=10_000 + number, split=Split.away(away), local=local, remote=remote)
        hosts = (f"{key.name}.default", f"{key.name}.default:80")
        resources = self._translator.resources(key, route.model_copy(update={"hosts": hosts}), ())
        if self._way != VIRTUAL_HOSTS:
            return key, resources
        routes = (ROUTE, names.entrance_routes(key, route.port))
        self._note_hosts(key, hosts, next(one for one in resources if one.key == routes))
        own = (one for one in resources if one.key.type_url != SCOPED_ROUTE)
        return key, tuple(_by_virtual_host(one) if one.key.name == names.SHARED_ENTRANCE else one for one in own)

    def _note_hosts(self, key: RouteKey, hosts: Sequence[str], own: Resource) -> None:
        (host,) = RouteConfiguration.FromString(own.body).virtual_hosts
        host.name = str(key)
        host.domains[:] = [form for one in hosts for form in forms_of(one)]
        known = next((one for one in self._hosts.virtual_hosts if one.name == host.name), None)
        (known or self._hosts.virtual_hosts.add()).CopyFrom(host)

    def _one_configuration(self) -> Resource:
        return Resource.of(ROUTE, self._hosts.name, self._hosts.SerializeToString(deterministic=True))


def _by_virtual_host(shared: Resource) -> Resource:
    """Return the shared listener with one route configuration in place of scoped routes."""
    from envoy.config.listener.v3.listener_pb2 import Listener  # noqa: PLC0415 - half a second
    from envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager_pb2 import (  # noqa: PLC0415
        HttpConnectionManager,
        Rds,
    )

    listener = Listener.FromString(shared.body)
    config = listener.filter_chains[0].filters[0].typed_config
    manager = HttpConnectionManager.FromString(config.value)
    ads = manager.scoped_routes.rds_config_source
    manager.rds.CopyFrom(Rds(route_config_name="all-hosts", config_source=ads))
    config.value = manager.SerializeToString(deterministic=True)
    return Resource.of(LISTENER, shared.key.name, listener.SerializeToString(deterministic=True))


@asynccontextmanager
async def served(way: str, models: int, folder: Path) -> AsyncIterator[tuple[Site, Envoy]]:
    """Serve so many models to an Envoy, which has all of them and is at rest."""
    site, xds = Site(way, Network.unused()), HostPort("127.0.0.1", unused_port())
    await site.server.start(str(xds))
    envoy = Envoy.joining(f"{way}-{models}".replace(" ", "-"), _TOKEN, xds, folder)
    try:
        await envoy.started()
        site.serve(range(models), 30)
        await site.acknowledged()
        await settled(envoy)
        yield site, envoy
    finally:
        await envoy.stop()
        await site.server.stop(0)


async def measure(many: int, folder: Path) -> Mapping[tuple[str, int], Figures]:
    """Serve few models and many in each way, and have each Envoy take a change in each round."""
    figures = dict[tuple[str, int], Figures]()
    async with AsyncExitStack() as stack:
        sites = {}
        for which in ((way, models) for models in (_FEW, many) for way in WAYS):
            sites[which] = _, envoy = await stack.enter_async_context(served(*which, folder))
            figures[which] = Figures(await envoy.memory())
        for number in range(_ROUNDS):
            for which in sorted(sites, reverse=bool(number % 2)):
                site, envoy = sites[which]
                before = envoy.process.usage.cpu_seconds()
                figures[which].sent = site.serve([number % _FEW], 31 + number)
                await site.acknowledged()
                figures[which].changes.append(envoy.process.usage.cpu_seconds() - before)
    return figures


def verdicts(figures: Mapping[tuple[str, int], Figures], many: int) -> Iterator[tuple[bool, str]]:
    """Judge: does a change cost the same with many models, and what more than without the shared port?"""
    few, scoped, own = (figures[way] for way in ((SCOPED_ROUTES, _FEW), (SCOPED_ROUTES, many), (OWN_PORTS, many)))
    growth, more = scoped.ratio_to(few), scoped.ratio_to(own)
    yield growth <= _AT_MOST, f"at most {_AT_MOST} times the CPU of a change with {_FEW} models: {growth:.2f}"
    yield more <= _AT_MOST, f"at most {_AT_MOST} times the CPU of a change without the shared port: {more:.2f}"
    megabytes = (scoped.allocated - own.allocated) / many / 1e6
    yield megabytes <= _AT_MOST_MB, f"at most {_AT_MOST_MB} MB allocated for the hosts of a model: {megabytes:.3f}"


async def _run(many: int) -> int:
    click.echo(f"{'way':<16}{'models':>7}{'change, ms of CPU':>19}{'bytes sent':>12}{'allocated':>12}")
    with tempfile.TemporaryDirectory(prefix="hosts-") as folder:
        figures = await measure(many, Path(folder))
    for (way, models), one in figures.items():
        numbers = f"{median(one.changes) * 1e3:>19.2f}{one.sent:>12}{one.allocated / 1e6:>9.1f} MB"
        click.echo(f"{way:<16}{models:>7}{numbers}")
    click.echo("")
    return judged(verdicts(figures, many))


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--models", type=click.IntRange(11, 5000), default=1000, show_default=True)
def main(models: int) -> None:
    """Measure what the port that all models share costs an Envoy. Exit codes: 0 every goal is met, 1 one is missed."""
    sys.exit(asyncio.run(_run(models)))


if __name__ == "__main__":
    main()
