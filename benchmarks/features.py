"""What each optional feature of the data plane costs a request.

One Envoy of the product with one worker for each feature, and one without any, take turns of a fraction of a second
with 32 clients on kept connections, for each leg. What counts is the CPU that an Envoy used per request, compared
within each round. A new feature is one line in `benchmarks.proxies.features.FEATURES`.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import click

from benchmarks.proxies import configs
from benchmarks.proxies.configs import Upstreams
from benchmarks.proxies.duties import wait_until_splitting
from benchmarks.proxies.envoys import Cpus, Envoys, on_cpus
from benchmarks.proxies.features import CASES, FEATURES, LEGEND, NONE, Case, CasesRound, table, turns
from benchmarks.proxies.lineup import Proxy, clients_of
from benchmarks.proxies.product import ServedModel, model_route
from benchmarks.proxies.protection import Protection
from benchmarks.proxies.signals import until_signalled
from tests.support.network import Network
from xds_server.resources.translator import EnvoySettings

_WARM_UP = 6
"""Rounds before those that count."""

EPILOG = """\b
Exit codes:
  0    measured, and no request failed
  1    requests failed
  2    could not run
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  make bench NAME=features
  python -m benchmarks.features --rounds 300               more certain
"""


async def run(rounds: int, seconds_per_slot: float) -> int:
    """Measure, print, and return the exit code. Raises CannotRunError and OSError."""
    cpus = Cpus.of_this_process()
    with tempfile.TemporaryDirectory(prefix="features-") as folder, on_cpus(cpus.rest), Envoys(Path(folder)) as envoys:
        click.echo(f"starting {len(CASES)} Envoys and their upstream")
        protection = Protection.made_in(Path(folder))
        async with _lineup(envoys, cpus, protection) as proxies:
            try:
                warm_up = [await _round(proxies, number, seconds_per_slot) for number in range(_WARM_UP)]
                counted = [await _round(proxies, number, seconds_per_slot) for number in range(rounds)]
            except OSError:
                envoys.check()  # says which one is gone, and its last words
                raise
    click.echo(f"\n{table(counted)}\n\n{LEGEND}")
    return 1 if any(slot.failed for one in (*warm_up, *counted) for slot in one.values()) else 0


@asynccontextmanager
async def _lineup(envoys: Envoys, cpus: Cpus, protection: Protection) -> AsyncIterator[Mapping[Case, Proxy]]:
    """Start one Envoy for each case, and one that is the upstream of all. Raises CannotRunError."""
    network = Network.unused()
    upstreams = Upstreams.in_network(network)
    fronts = {case: network.host(number) for number, case in enumerate(CASES, 1)}
    features = {feature.name: feature for feature in (NONE, *FEATURES)}
    envoys.envoy("the upstream", configs.upstream(upstreams, protection.certificate), cpus.rest)
    async with AsyncExitStack() as stack:
        started = {}
        for case, front in fronts.items():
            feature = features[case.feature]
            route = feature.route(model_route(upstreams, case.local))
            plane = ServedModel(feature.settings(EnvoySettings(front)), upstreams.replicas, route, protection.secrets)
            stack.push_async_callback(plane.stop)
            started[case] = envoys.envoy(f"{case.feature} {case.local}", await plane.start(), cpus.proxies)
        tls, proxies = protection.context(), {}
        for case, front in fronts.items():
            feature = features[case.feature]
            over, said = tls if feature.over_tls else None, feature.authorization
            await wait_until_splitting(front, case.local, envoys.check, said, over)
            proxies[case] = Proxy(started[case], clients_of(stack, front, said, over))
        yield proxies


async def _round(proxies: Mapping[Case, Proxy], number: int, seconds: float) -> CasesRound:
    slots = {}
    for case in turns(number):
        slots[case] = proxies[case].slot(seconds)
        # The load blocks on purpose; between two slots the control planes have their turn.
        await asyncio.sleep(0)
    return slots


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option(
    "--rounds",
    type=click.IntRange(2, 5000),
    default=120,
    show_default=True,
    help="One slot of each Envoy is a round.",
)
@click.option(
    "--seconds-per-slot",
    type=click.FloatRange(0.01, 10),
    default=0.05,
    show_default=True,
    help="How long the turn of an Envoy lasts.",
)
def main(rounds: int, seconds_per_slot: float) -> None:
    """Measure what each optional feature of the product's data plane costs a request, and print a table."""
    sys.exit(asyncio.run(until_signalled(run(rounds, seconds_per_slot))))


if __name__ == "__main__":
    main()
