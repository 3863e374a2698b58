"""What a change of one model costs, from its route to what an Envoy is sent, with ten models there or a thousand.

Each round brings a model that nobody knew, changes its split, takes one of its replicas away and removes it. Beside it
stands what betterproto2 alone takes to serialise the resources that this changed, without building them.
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import click

from benchmarks.proxies.signals import judged
from controller.api.contract.route import Header, LocalBackend, Remote, Route, RouteKey, Split
from controller.api.kubernetes.endpoints import Replica
from tests.support.betterproto import messages_in
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.assembly import Assembly
from xds_server.snapshot.snapshot import MAKE_BEFORE_BREAK, Resource, ResourceKey
from xds_server.stream import wire
from xds_server.stream.protocol.dialects import DeltaSession
from xds_server.stream.protocol.messages import ClientTerms, DeltaRequest, Output
from xds_server.stream.protocol.parts import at_once

T = TypeVar("T")

_REPLICAS = tuple(Replica(f"10.0.0.{number}", 8000, ready=True) for number in range(1, 6))
_BACKENDS = 10
"""How many remote backends the models share."""
_WARM_UP = 3
"""Rounds before those that count."""
_AT_LEAST = 5.0
"""Times as fast as betterproto2 alone."""
_AT_MOST = 1.5
"""Times the cost with the fewest models."""

LEGEND = """\
CPU in milliseconds, medians. translate: from the route to the resources; snapshot: to the snapshot that has them;
Envoy: for one session over delta xDS, acknowledgements included; betterproto2: `bytes()` of the resources that changed,
and how many times as long that is as to build and serialise them here."""


@dataclass(frozen=True, slots=True)
class Change:
    """A step of every round: its name, and the share that leaves and the replicas after it. No replicas: no model."""

    name: str
    away: int = 0
    replicas: tuple[Replica, ...] = ()


NEW = Change("new model", 30, _REPLICAS)
CHANGES = (
    NEW,
    Change("split", 40, _REPLICAS),
    Change("one replica less", 40, _REPLICAS[1:]),
    Change("model removed"),
)


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU of one change, in seconds."""

    translate: float
    snapshot: float
    envoy: float
    betterproto2: float


@dataclass(frozen=True, slots=True)
class Row:
    """The medians of one change with so many models."""

    models: int
    change: Change
    cost: Cost

    @property
    def whole(self) -> float:
        """From the route to the last acknowledgement."""
        return self.cost.translate + self.cost.snapshot + self.cost.envoy

    @property
    def ratio(self) -> float:
        """How many times as long betterproto2 takes for a part of the work."""
        return self.cost.betterproto2 / self.cost.translate

    def __str__(self) -> str:
        times = (self.cost.translate, self.cost.snapshot, self.cost.envoy)
        shown = "".join(f"{seconds * 1000:>11.3f}" for seconds in times)
        baseline = f"{self.cost.betterproto2 * 1000:>14.3f}{self.ratio:>8.1f}" if self.change.replicas else ""
        return f"{self.models:>7}  {self.change.name:<18}{shown}{baseline}"


class Envoy:
    """A session, and a client that asks for everything and acknowledges whatever it is sent."""

    def __init__(self, world: Assembly[RouteKey]) -> None:
        self._session = DeltaSession(world.snapshot, ClientTerms(), now=0)
        for type_url in MAKE_BEFORE_BREAK:
            self._follow(at_once(self._session.receive(DeltaRequest(type_url, subscribe=("*",)), now=0)))

    def take(self, world: Assembly[RouteKey], changed: frozenset[ResourceKey]) -> None:
        """Publish, and acknowledge until there is nothing more to say."""
        self._follow(at_once(self._session.publish(world.snapshot, changed, now=1)))

    def _follow(self, output: Output) -> None:
        responses = list(output.responses)
        while responses:
            response = responses.pop(0)
            at_once(wire.pack_delta(response, "benchmark"))
            request = DeltaRequest(response.type_url, nonce=response.nonce)
            responses += at_once(self._session.receive(request, now=1)).responses


def rows(models: int, rounds: int) -> Sequence[Row]:
    """Measure each change while `models` are there."""
    world: Assembly[RouteKey] = Assembly()
    translator = Translator(EnvoySettings())
    world.replace([(_key(number), _translated(translator, number, NEW)[1]) for number in range(models)])
    envoy = Envoy(world)
    costs: dict[Change, list[Cost]] = {change: [] for change in CHANGES}
    for number in range(models, models + _WARM_UP + rounds):
        gc.collect()
        for change, found in costs.items():
            found.append(_cost(translator, world, envoy, number, change))
    return [Row(models, change, _medians(found[_WARM_UP:])) for change, found in costs.items()]


def _cost(translator: Translator, world: Assembly[RouteKey], envoy: Envoy, number: int, change: Change) -> Cost:
    translate, resources = _translated(translator, number, change)
    snapshot, changed = _timed(lambda: world.replace([(_key(number), resources)]))
    taken, _ = _timed(lambda: envoy.take(world, changed))
    messages = [
        message for one in resources if one.key in changed for message in messages_in(one.key.type_url, one.body)
    ]
    baseline, _ = _timed(lambda: [bytes(one) for one in messages])
    return Cost(translate, snapshot, taken, baseline)


def _timed(step: Callable[[], T]) -> tuple[float, T]:
    started = time.process_time()
    result = step()
    return time.process_time() - started, result


def _medians(costs: Sequence[Cost]) -> Cost:
    return Cost(
        median(one.translate for one in costs),
        median(one.snapshot for one in costs),
        median(one.envoy for one in costs),
        median(one.betterproto2 for one in costs),
    )


def _key(number: int) -> RouteKey:
    return RouteKey.of_model("default", f"model-{number}")


def _route(number: int, change: Change) -> Route:
    host = f"backend-{number % _BACKENDS}.example"
    header = Header(name="x-tenant", value="benchmark")
    remote = Remote(host=host, port=443, authority=host, path_prefix=f"/model-{number}", headers_to_add=(header,))
    local = LocalBackend(namespace="default", service=f"model-{number}")
    return Route.between(port=10_000 + number, split=Split.away(change.away), local=local, remote=remote)


def _translated(translator: Translator, number: int, change: Change) -> tuple[float, tuple[Resource, ...]]:
    model, route = _key(number), _route(number, change)
    return _timed(lambda: translator.resources(model, route, change.replicas) if change.replicas else ())


def verdicts(measured: Sequence[Row]) -> Iterator[tuple[bool, str]]:
    """Judge: is it as many times as fast as betterproto2, and does a change cost the same with many models?"""
    slowest = min((row for row in measured if row.change.replicas), key=lambda row: row.ratio)
    yield (
        slowest.ratio >= _AT_LEAST,
        f"at least {_AT_LEAST} times as fast as betterproto2 alone: {slowest.ratio:.1f} ({slowest.change.name})",
    )
    few = {row.change: row.whole for row in measured if row.models == measured[0].models}
    dearest = max(measured, key=lambda row: row.whole / few[row.change])
    growth = dearest.whole / few[dearest.change]
    yield (
        growth <= _AT_MOST,
        f"at most {_AT_MOST} times the cost with {measured[0].models}: "
        f"{growth:.2f} ({dearest.change.name}, {dearest.models} models)",
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--models", multiple=True, type=click.IntRange(1, 20_000), default=(10, 100, 1000), show_default=True)
@click.option(
    "--rounds", type=click.IntRange(3, 1000), default=30, show_default=True, help="How often each is measured."
)
def main(models: tuple[int, ...], rounds: int) -> None:
    """Measure what a change of one model costs. Exit codes: 0 every goal is met, 1 a goal is missed."""
    click.echo(
        f"{'models':>7}  {'change':<18}{'translate':>11}{'snapshot':>11}{'Envoy':>11}{'betterproto2':>14}{'ratio':>8}"
    )
    measured: list[Row] = []
    for count in sorted(models):
        for row in rows(count, rounds):
            click.echo(str(row))
            measured.append(row)
    click.echo(f"\n{LEGEND}\n")
    sys.exit(judged(verdicts(measured)))


if __name__ == "__main__":
    main()
