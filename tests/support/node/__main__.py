"""Start a node by hand, to try things out: `python -m tests.support.node`. Ctrl-C ends it with all that runs on it."""

from __future__ import annotations

import signal
import sys

import click

from tests.support.node.components import ProxyMode
from tests.support.node.missing import missing
from tests.support.node.node import Node, work_folder
from tests.tools import binaries


@click.command()
@click.option("--proxy", type=click.Choice(["nftables", "iptables"]), default="nftables", help="Of kube-proxy.")
@click.option("--metrics", is_flag=True, help="Install metrics-server too.")
def main(proxy: ProxyMode, metrics: bool) -> None:
    """Start a Kubernetes node of this machine's own, and say how to reach it."""
    if lacks := missing():
        sys.exit(lacks)
    for program in binaries.NODE_PROGRAMS:
        program()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with work_folder() as folder, Node.running(folder, proxy) as node:
            if metrics:
                node.install("metrics-server")
            print(f"export KUBECONFIG={node.kubeconfig}")
            print(f"# a shell on the node: {' '.join(map(str, node.place.inside('/bin/bash')))}")
            print("# Ctrl-C ends it", flush=True)
            signal.pause()
    except KeyboardInterrupt:
        print("ended")


if __name__ == "__main__":
    main(prog_name="python -m tests.support.node")
