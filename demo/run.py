"""The demo from the first process to the plot."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import azure_code_trace, replay
from demo.addresses import free_addresses
from demo.cluster import Cluster
from demo.console import Console
from demo.play import Outcome, Play
from demo.probe import wait_for_answer
from demo.process import Process, Processes
from demo.product import start_product
from demo.timeline import kill_and_return

_TRACE_START = 1560.0
"""Seconds into the trace: from there on it has bursts and few pauses."""


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line asks for."""

    seconds: float
    """How long the load lasts."""
    rate: float
    """Mean requests per second."""
    output: Path
    """Where the plot goes."""


async def run(options: Options, console: Console) -> int:
    """Run the whole demo and return its exit code: 1 when a request failed. Raises DemoError."""
    requests = replay(azure_code_trace(), _TRACE_START, round(options.rate * options.seconds), options.seconds)
    kill, revive = kill_and_return([request.at for request in requests], options.seconds)
    with tempfile.TemporaryDirectory(prefix="beamlit-demo-") as home, Processes(Path(home)) as processes:
        cluster, product = await _start(Path(home), processes, console)
        console.step(
            f"load: {len(requests)} requests in {options.seconds:.0f} s, arrivals of the Azure code trace 2023"
        )
        outcome = await Play(cluster, product, console).load(requests, kill, revive)
    return _report(outcome, options.output, console)


async def _start(home: Path, processes: Processes, console: Console) -> tuple[Cluster, Process]:
    folder = home / "manifests"
    folder.mkdir()
    addresses = free_addresses()
    cluster = Cluster(folder, addresses, processes)
    console.step("start: three local model servers and a remote one")
    await cluster.start()
    console.step(f"start: beamlit run {folder} --envoy")
    product = start_product(folder, home / "state", addresses, processes)
    await wait_for_answer(cluster.url, product)
    console.step(f"ready: {cluster.url} answers through Envoy; status: http://127.0.0.1:{addresses.admin}/status")
    return cluster, product


def _report(outcome: Outcome, output: Path, console: Console) -> int:
    whole = outcome.report.summary
    console.table([*((name, part.summary) for name, part in outcome.phases), ("all", whole)])
    for error, count in outcome.report.errors.items():
        console.step(f"failed: {count} x {error}")
    # Imported here: it takes a second, and a demo that is interrupted never needs it.
    from demo.plot import draw  # noqa: PLC0415

    draw(outcome, output)
    console.step(f"\nplot: {output}\n{whole.failed} of {whole.requests} requests failed")
    return 1 if whole.failed else 0
