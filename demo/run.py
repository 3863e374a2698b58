"""The demo from the first process to the plot."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from demo.addresses import unused_addresses
from demo.cluster import Cluster
from demo.console import Console
from demo.outcome import Outcome
from demo.play import Play
from demo.probe import wait_for_answer
from demo.product import start_product
from demo.promises import promises_of
from demo.timeline import Plan, plan
from tests.support.load import azure_code_trace
from tests.support.processes import Child, Children, adopting_orphans

_SHORT = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    short: bool
    """Whether each part of the load takes half as long."""
    output: Path
    """Where the plot goes."""


async def run(options: Options, console: Console) -> int:
    """Run the whole demo and return its exit code: 1 when a promise was broken.

    Raises DemoError and ProcessEndedError.
    """
    planned = plan(azure_code_trace(), _SHORT if options.short else 1.0)
    with (
        tempfile.TemporaryDirectory(prefix="beamlit-demo-") as home,
        adopting_orphans(),
        Children(Path(home)) as processes,
    ):
        cluster, product = await _start(Path(home), processes, console)
        console.step(
            f"load: {len(planned.requests)} streamed completions in {planned.end:.0f} s, "
            "arrivals and lengths of the Azure code trace 2023"
        )
        play = Play(cluster, product, console)
        outcome = await play.load(planned)
    return _report(outcome, replace(planned, requests=play.sent), options.output, console)


async def _start(home: Path, processes: Children, console: Console) -> tuple[Cluster, Child]:
    addresses = unused_addresses()
    cluster = Cluster(home, addresses, processes)
    console.step("start: three local model servers, a remote one behind TLS and OAuth2, its token endpoint")
    await cluster.start()
    console.step(f"start: beamlit run {cluster.folder} --envoy")
    product = start_product(cluster.folder, home / "state", addresses, processes)
    await wait_for_answer(f"{cluster.front}/healthz", product)
    console.step(f"ready: {cluster.url} answers through Envoy; status: http://127.0.0.1:{addresses.admin}/status")
    return cluster, product


def _report(outcome: Outcome, planned: Plan, output: Path, console: Console) -> int:
    whole = outcome.tally
    console.table(outcome.phases, whole)
    for error, count in outcome.report.errors.items():
        console.step(f"no whole answer: {count} x {error}")
    # An Envoy has no more workers than there are processors.
    promises = promises_of(outcome, workers=os.cpu_count() or 1)
    console.promises(promises)
    # Imported here: it takes a second, and a demo that is interrupted never needs it.
    from demo.plot import draw  # noqa: PLC0415

    draw(outcome, planned, output)
    console.step(f"\nplot: {output}\n{whole.failed} of {whole.requests} requests failed")
    return 0 if all(one.kept for one in promises) else 1
