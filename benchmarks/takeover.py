"""What clients notice while a Service is taken over and given back on a real Kubernetes node, and what the hop costs.

Each request has a connection of its own, from one of several client pods, through DNS and kube-proxy. The product
is the chart with images built here. Needs what `make e2e` needs.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import click

from tests.support.node import helm, platform, seed
from tests.support.node.clients import Calls, Clients
from tests.support.node.components import ProxyMode
from tests.support.node.helm import Release
from tests.support.node.missing import missing
from tests.support.node.node import Node, work_folder
from tests.support.node.our_images import have_our_images
from tests.support.node.takeover import EVERYWHERE, FrontedModel, owners_chart
from tests.support.waiting import until_now
from tests.tools import binaries

URL = f"http://{seed.NAME}"
DIRECT = "direct"
"""A Service of the same pods, which nobody takes over."""
SYSTEM = "beamlit-system"
HOP_AT_MOST = 3.0
"""How many times as long as without the gateway a request may take, with a connection of its own, at the median."""

EPILOG = """\b
Exit codes:
  0    every goal is met
  1    a goal is missed
  2    could not run

\b
Examples:
  make bench NAME=takeover
  python -m benchmarks.takeover --requests 10000 --rate 200      a small one
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """A node with the product, a model, and clients."""

    node: Node
    release: Release
    model: FrontedModel
    clients: Clients
    rate: float

    @classmethod
    @contextlib.contextmanager
    def standing(cls, rate: float) -> Iterator[Stage]:
        """One on a node of its own."""
        with work_folder() as folder, Node.running(folder) as node:
            have_our_images(node)
            platform.install(node)
            model = FrontedModel(node, "default")
            model.deploy()
            direct = {**seed.service(), "metadata": {"name": DIRECT}}
            node.apply(direct)
            with (
                Release.installed(node, SYSTEM, *EVERYWHERE) as release,
                Clients.running(node, "default", count=8) as clients,
            ):
                yield cls(node, release, model, clients, rate)

    def played(self, play: Callable[[], None], requests: int) -> Calls:
        """Play something again and again while clients call, until so many requests were sent."""
        begun = time.monotonic()
        with self.clients.calling(URL, self.rate) as calling:
            while time.monotonic() - begun < requests / self.rate:
                play()
        return calling.seen

    def taken_over_and_given_back(self) -> None:
        """Take it over, let clients call, give it back, let clients call."""
        self.model.take_over()
        time.sleep(3)
        self.model.give_back()
        time.sleep(3)

    def gateway_rolled_out(self) -> None:
        """Replace every pod of the gateway."""
        self.release.roll_out(helm.GATEWAY)


def upgraded(stage: Stage, chart: Path) -> Callable[[], None]:
    """The owner upgrades the chart that the Service comes from, each time to something else."""
    versions = iter(range(1, 1_000_000))

    def upgrade() -> None:
        where = f"--namespace={stage.model.namespace}"
        helm.helm(stage.node, "upgrade", "owner", chart, where, f"--set=version=v{next(versions)}")
        until_now(lambda: stage.model.is_taken_over, "what the owner reset is narrowed again")
        # More often than once a minute is a quarrel, which the controller gives up.
        time.sleep(60)

    return upgrade


def run(stage: Stage, requests: int) -> bool:
    """Play everything and print what came of it; tell whether every goal is met."""
    seen: dict[str, Calls] = {}
    modes: tuple[ProxyMode, ...] = ("nftables", "iptables")
    with tempfile.TemporaryDirectory() as folder:
        chart = owners_chart(Path(folder))
        where = f"--namespace={stage.model.namespace}"
        stage.node.kubectl("delete", "service", seed.NAME, where)
        helm.helm(stage.node, "install", "owner", chart, where)
        upgrade, each = upgraded(stage, chart), -(-requests // 6)
        for mode in modes:
            stage.node.run_kube_proxy(mode)
            seen[f"taken over and given back, {mode}"] = stage.played(stage.taken_over_and_given_back, each)
            stage.model.take_over()
            seen[f"the gateway rolled out, {mode}"] = stage.played(stage.gateway_rolled_out, each)
            seen[f"the owner's chart upgraded, {mode}"] = stage.played(upgrade, each)
    stage.node.run_kube_proxy("nftables")
    for name, calls in seen.items():
        click.echo(f"{name:<38} {calls}")
    with (
        stage.clients.calling(URL, stage.rate / 4) as through,
        stage.clients.calling(f"http://{DIRECT}", stage.rate / 4) as direct,
    ):
        time.sleep(30)
    # By the controller, while there is one: a finalizer waits for it.
    stage.model.give_back()
    click.echo(f"{'through the gateway':<38} {through.seen}")
    click.echo(f"{'to the pods, at the same time':<38} {direct.seen}")
    sent, failed = (sum(number) for number in zip(*((c.requests, c.total.failed) for c in seen.values()), strict=True))
    hop = through.seen.p50 / direct.seen.p50
    met = (
        goal(failed == 0 and sent >= requests, f"no request fails: {failed} of {sent:,}"),
        goal(
            hop <= HOP_AT_MOST,
            f"a request takes at most {HOP_AT_MOST:.0f} times as long: {hop:.2f} times, "
            f"{through.seen.p50:.2f} ms beside {direct.seen.p50:.2f} ms at the median",
        ),
    )
    return all(met)


def goal(is_met: bool, words: str) -> bool:
    """Print whether a goal is met."""
    click.echo(f"{'met' if is_met else 'missed':<6} {words}")
    return is_met


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--requests", type=click.IntRange(1000, 1_000_000), default=100_000, show_default=True)
@click.option("--rate", type=click.FloatRange(10, 2000), default=500.0, show_default=True, help="Requests a second.")
def main(requests: int, rate: float) -> None:
    """Take a Service over and give it back on a real node, in each mode of kube-proxy, under load.

    Also roll the gateway out and have the owner upgrade his chart. Takes about ten minutes.
    """
    if lacks := missing():
        click.echo(lacks, err=True)
        sys.exit(2)
    for program in binaries.NODE_PROGRAMS:
        program()
    with Stage.standing(rate) as stage:
        met = run(stage, requests)
    sys.exit(0 if met else 1)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.takeover")
