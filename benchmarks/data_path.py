"""What a request pays in the product's data plane, against a static Envoy and against one written by hand.

Nine Envoys with one worker each (three kinds, three splits) take turns of a fraction of a second with 32 clients on kept
connections. What counts is the CPU that the Envoy used per request, compared within each round; the upstream is an Envoy
that answers at once. Before that, the Envoy by hand and the product's show that they treat requests alike.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from benchmarks.proxies import configs
from benchmarks.proxies.comparison import GOALS, VARIANTS, Kind, Round, Variant, failed, turns
from benchmarks.proxies.configs import FRONT_PORT, Upstreams
from benchmarks.proxies.duties import duties, wait_until_splitting
from benchmarks.proxies.envoys import CannotRunError, Cpus, Envoy, Envoys, free_network, on_cpus
from benchmarks.proxies.product import ControlPlane
from benchmarks.proxies.slots import Clients
from benchmarks.proxies.table import table, unsettled, verdict, verdict_on_failures

CLIENTS = 32
WARM_UP_ROUNDS = 4
_BODY = b'{"model": "chat", "messages": [{"role": "user", "content": "hello"}]}'
REQUEST = (
    b"POST /v1/chat/completions HTTP/1.1\r\nhost: chat.default\r\nauthorization: Bearer of-the-client\r\n"
    b"content-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(_BODY), _BODY)
)

EPILOG = """\b
Exit codes:
  0    every goal is met
  1    a goal is missed
  2    could not run
  130  interrupted; no process is left behind

\b
Examples:
  make bench NAME=data_path
  python -m benchmarks.data_path --rounds 60          quicker, less certain
  python -m benchmarks.data_path --rounds 500         on a noisy machine
"""


@dataclass(frozen=True, slots=True)
class Options:
    """How long it runs. While a goal is not settled there are more rounds, up to three times as many."""

    rounds: int
    seconds_per_slot: float


@dataclass(frozen=True, slots=True)
class Proxy:
    """One variant that runs, and its clients."""

    envoy: Envoy
    clients: Clients


async def run(options: Options) -> int:
    """Measure, print, and return the exit code. Raises CannotRunError."""
    cpus = Cpus.of_this_process()
    with tempfile.TemporaryDirectory(prefix="data-path-") as folder, on_cpus(cpus.rest), Envoys(Path(folder)) as envoys:
        click.echo(f"starting {len(VARIANTS)} Envoys and an upstream")
        async with _proxies(envoys, cpus) as proxies:
            rounds = await _measured(proxies, options)
    click.echo(f"\n{table(rounds)}\n")
    for goal in GOALS:
        click.echo(verdict(goal, rounds))
    click.echo(verdict_on_failures(rounds))
    return 0 if all(goal.met(rounds) for goal in GOALS) and not failed(rounds) else 1


@asynccontextmanager
async def _proxies(envoys: Envoys, cpus: Cpus) -> AsyncIterator[Mapping[Variant, Proxy]]:
    """Start everything and wait until all of it does what it is to do."""
    network = free_network(FRONT_PORT)
    upstreams = Upstreams((f"{network}.101", f"{network}.102", f"{network}.103"), f"{network}.110")
    fronts = {variant: f"{network}.{number}" for number, variant in enumerate(VARIANTS, 1)}
    async with AsyncExitStack() as stack:
        envoys.start("the upstream", configs.upstream(upstreams), cpus.rest)
        started, planes = {}, []
        for variant, front in fronts.items():
            if variant.kind is Kind.PRODUCT:
                plane = ControlPlane(front, upstreams, variant.local)
                config = await plane.start()
                stack.push_async_callback(plane.stop)
                planes.append(plane)
            else:
                written = configs.static if variant.kind is Kind.STATIC else configs.by_hand
                config = written(front, upstreams, variant.local)
            started[variant] = envoys.start(str(variant), config, cpus.proxies)
        for plane in planes:
            await plane.wait_until_delivered()
        for variant, front in fronts.items():
            await wait_until_splitting(front, variant.local, envoys.check)
        await _compare_duties(fronts)
        yield {
            variant: Proxy(envoy, Clients((fronts[variant], FRONT_PORT), REQUEST, CLIENTS))
            for variant, envoy in started.items()
        }


async def _compare_duties(fronts: Mapping[Variant, str]) -> None:
    for local in (100, 50, 0):
        ours = await duties(fronts[Variant(Kind.PRODUCT, local)], local)
        theirs = await duties(fronts[Variant(Kind.BY_HAND, local)], local)
        if ours != theirs:
            raise CannotRunError(f"at {local} % local the product and the Envoy by hand differ: {ours ^ theirs}")
    click.echo("the product and the Envoy by hand treat requests alike")


async def _measured(proxies: Mapping[Variant, Proxy], options: Options) -> list[Round]:
    rounds: list[Round] = []
    for number in range(-WARM_UP_ROUNDS, 3 * options.rounds):
        one: Round = {variant: proxies[variant] for variant in turns(number)}
        if number >= 0:
            rounds.append(one)
    return rounds
