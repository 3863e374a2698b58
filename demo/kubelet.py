"""What the kubelet and the endpoint controller do for a model's replicas: probe them, and write their EndpointSlices.

For where there is no cluster: each replica is named by a host that may have another address after a restart.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

import aiohttp
import click

from demo.files import write_at_once
from demo.manifests import Replica, slices_yaml

_PROBED_EVERY = 1.0
_ANSWERS_WITHIN = 1.0


async def address_of(host: str, before: str) -> str:
    """Return the address of a host, or the one that it had before while it has none."""
    with contextlib.suppress(OSError):
        found = await asyncio.get_running_loop().getaddrinfo(host, None, family=socket.AF_INET)
        return str(found[0][4][0])
    return before


async def is_ready(session: aiohttp.ClientSession, address: str, port: int) -> bool:
    """Ask a replica whether it is ready, as its readiness probe would."""
    try:
        async with session.get(f"http://{address}:{port}/healthz") as answer:
            return answer.status == 200
    except (aiohttp.ClientError, TimeoutError):
        return False


async def probed(session: aiohttp.ClientSession, replica: Replica, host: str) -> Replica:
    """Look at one replica; `host` is its name, and `replica` what was known of it."""
    address = await address_of(host, replica.host)
    ready = bool(address) and await is_ready(session, address, replica.port)
    return Replica(replica.name, address, replica.port, ready)


async def _run(names: Sequence[str], port: int, file: Path) -> None:
    replicas = [Replica(name, "", port, ready=False) for name in names]
    written = ""
    timeout = aiohttp.ClientTimeout(total=_ANSWERS_WITHIN)
    async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(force_close=True)) as session:
        while True:
            looks = (probed(session, replica, name) for replica, name in zip(replicas, names, strict=True))
            replicas = list(await asyncio.gather(*looks))
            text = slices_yaml([one for one in replicas if one.host])
            if text and text != written:
                write_at_once(file, text)
                written = text
                ready = sum(one.ready for one in replicas)
                click.echo(f"{ready} of {len(replicas)} replicas are ready")
            await asyncio.sleep(_PROBED_EVERY)


@click.command()
@click.option("--replica", "replicas", multiple=True, required=True, metavar="HOST", help="One of the replicas.")
@click.option("--port", type=int, default=8000, show_default=True, help="Where all of them listen.")
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where the slices go.")
def main(replicas: tuple[str, ...], port: int, file: Path) -> None:
    """Probe the replicas until it is stopped."""
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_run(replicas, port, file))


if __name__ == "__main__":
    main()
