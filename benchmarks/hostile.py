"""What a thousand hostile clients make of one Envoy: whether its memory stays below its bound, and whom it serves.

Each kind of them tries one of the limits in docs/data-plane.md, "What clients may take"; each alone has its test in
tests/data_plane/test_client_limits.py. They are raw sockets, so that the load is the Envoy's.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import click
import httpx
import yaml
from h2.config import H2Configuration
from h2.connection import H2Connection

from benchmarks.proxies.signals import until_signalled
from controller.api.kubernetes.endpoints import Replica
from controller.gateway.bootstrap import HostPort, Provision, bootstrap_for
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import Plane
from tests.support.envoy import Bootstrap
from tests.support.network import BACKEND_PORT, Network
from tests.support.waiting import until

KIB, MIB = 2**10, 2**20
_KINDS = 5
_LOOKS_EVERY = 0.25
_ANSWERED_WITHIN = 30.0
_ALONE_FOR = 3.0
_READY_WITHIN = 60.0
_POST = [(":method", "POST"), (":scheme", "http"), (":authority", "c.test"), (":path", "/a")]
_UPLOAD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (4 * MIB) + bytes(4 * MIB - 1)
_DOWNLOAD = b"GET / HTTP/1.1\r\nhost: a\r\non-local: size=30000000\r\n\r\n"
_SLOW = b"GET / HTTP/1.1\r\nhost: a\r\nx-slow: "

EPILOG = """\b
Exit codes:
  0    every goal is met
  1    a goal is missed
  2    could not run
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  make bench NAME=hostile
  python -m benchmarks.hostile --clients 200 --seconds 5      fewer, quicker
"""


@dataclass
class Seen:
    """What was seen of one Envoy with a bound, in bytes, and what a well-behaved client was told meanwhile."""

    bound: int
    before: int = 0
    most: int = 0
    came: int = 0
    """Connections that were accepted, in all."""
    told: Counter[str] = field(default_factory=Counter)
    after: str = ""
    alone: float = 0.0
    """The longest that the well-behaved client waited before the others came, in seconds."""
    slowest: float = 0.0
    """And while they were there."""

    def goals(self) -> list[tuple[bool, str]]:
        """Say what shall be, with what is, and whether it is so."""
        left = sum(number for answer, number in self.told.items() if answer not in ("200", "503"))
        return [
            (self.most <= self.bound, f"memory {self.most / self.bound:.2f} of its bound of {self.bound // MIB} MiB"),
            (not left, f"well-behaved client without an answer {left} of {self.told.total()} times ({self.told})"),
            (self.after == "200", f"when they are gone it is told {self.after}"),
        ]


class Client:
    """Connections to a model, without a buffer of their own."""

    def __init__(self, address: str) -> None:
        url = urlsplit(address)
        self._there = (url.hostname, url.port)

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[socket.socket]:
        with socket.socket() as one:
            one.setblocking(False)
            await asyncio.get_running_loop().sock_connect(one, self._there)
            yield one

    async def hold(self, *parts: bytes) -> None:
        """Send the first part and, when the other side has said something, the next one; then do nothing more."""
        loop = asyncio.get_running_loop()
        async with self._connection() as one:
            with contextlib.suppress(ConnectionError):
                for number, part in enumerate(parts):
                    if number:
                        await loop.sock_recv(one, 64 * KIB)
                    await loop.sock_sendall(one, part)
            await asyncio.Event().wait()

    async def drip(self) -> None:
        """Send headers byte by byte, and begin again when that is ended."""
        loop = asyncio.get_running_loop()
        while True:
            with contextlib.suppress(ConnectionError):
                async with self._connection() as one:
                    await loop.sock_sendall(one, _SLOW)
                    while True:
                        await asyncio.sleep(1)
                        await loop.sock_sendall(one, b"s")


def streams(count: int, *, body: int = 0, headers: int = 0) -> tuple[bytes, bytes]:
    """Write an HTTP/2 connection of so many requests that do not end, each with so many bytes: its beginning, the rest.

    All of them begin before the first body does, so that none is refused for what another one holds. Headers that are
    the same again are a byte each to who sends them (HPACK), and all of their bytes to who keeps them.
    """
    client, server = H2Connection(), H2Connection(H2Configuration(client_side=False))
    server.initiate_connection()
    client.initiate_connection()
    beginning = client.data_to_send()
    client.receive_data(server.data_to_send())
    more = [(f"x-{number}", "a" * 3 * KIB) for number in range(headers // (3 * KIB))]
    opened = range(1, 2 * count, 2)
    for stream in opened:
        client.send_headers(stream, [*_POST, *more])
    # DATA (RFC 9113, section 6.1), as much of it as Envoy's windows allow: more than this client knows of.
    part = 16 * KIB
    bodies = (part.to_bytes(3) + b"\0\0" + stream.to_bytes(4) + bytes(part) for stream in opened)
    return beginning, client.data_to_send() + b"".join(bodies) * (body // part)


@contextlib.asynccontextmanager
async def that_never_reads(host: str) -> AsyncIterator[tuple[Replica, ...]]:
    """Serve a replica that accepts, takes what the kernel takes, and says nothing."""
    kept = list[asyncio.StreamWriter]()

    def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        kept.append(writer)

    # Nobody reads, so what comes stops at twice the limit.
    async with await asyncio.start_server(accept, host, BACKEND_PORT, backlog=1000, limit=KIB):
        try:
            yield (Replica(host, BACKEND_PORT, ready=True),)
        finally:
            for writer in kept:
                writer.transport.abort()


async def run(bound: int, clients: int, seconds: float) -> int:
    """Let so many clients try for so long, tell of it, and return the exit code. Raises OSError."""
    seen = await play(bound, clients, seconds)
    click.echo(
        f"told   {seen.before // MIB} MiB before they came, {seen.most // MIB} MiB at most, {seen.came} connections"
    )
    click.echo(f"told   longest wait {seen.slowest:.2f} s, {seen.slowest / seen.alone:.0f} times that of before")
    for met, text in seen.goals():
        click.echo(f"{'met' if met else 'missed':<7}{text}")
    return 0 if all(met for met, _ in seen.goals()) else 1


async def play(bound: int, clients: int, seconds: float) -> Seen:
    """Let so many clients try for so long. Raises OSError."""
    seen, network = Seen(bound), Network.unused()

    def provided(bootstrap: Bootstrap) -> None:
        printed = yaml.safe_load(bootstrap_for("", "", HostPort("h", 1), None, Provision(memory=bound)))
        bootstrap["overload_manager"] = printed["overload_manager"]

    with tempfile.TemporaryDirectory(prefix="hostile-") as name, Backends(network, Path(name)).running() as backends:
        async with (
            that_never_reads(network.host(60)) as replicas,
            Plane(network, backends, Path(name)).running() as plane,
        ):
            await plane.join(change=provided)
            calm, stuck = await plane.serve(Wanted()), await plane.serve(Wanted(replicas=replicas), ready=False)
            await plane.acknowledged(stuck)
            seen.before = plane.envoy.process.usage.resident_bytes()
            # Its own process: a well-behaved client waits for the Envoy alone, not for those that send beside it.
            spawning = get_context("spawn")
            ready, go = spawning.Event(), spawning.Event()
            arguments = (calm.url, stuck.url, clients // _KINDS, ready, go)
            hostile = spawning.Process(target=_come, args=arguments, daemon=True)
            hostile.start()
            try:
                await asyncio.to_thread(ready.wait, _READY_WITHIN)
                seen.alone = await _watch(plane, calm, Seen(bound), _ALONE_FOR)
                go.set()
                seen.slowest = await _watch(plane, calm, seen, seconds)
                connected = await plane.envoy.stats(r"\.downstream_cx_total$")
                seen.came = sum(connected.get(f"http.{model.key}.downstream_cx_total", 0) for model in (calm, stuck))
            finally:
                hostile.kill()
                await asyncio.to_thread(hostile.join)
            await _served_again(plane, calm, seen)
    return seen


def _come(calm_url: str, stuck_url: str, of_each: int, ready: Event, go: Event) -> None:
    """Be the hostile clients, once told to go and until this process is killed."""
    calm, stuck = Client(calm_url), Client(stuck_url)
    many, long = streams(30, body=128 * KIB), streams(30, headers=48 * KIB)
    kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
        calm.drip,
        lambda: calm.hold(_DOWNLOAD),
        lambda: stuck.hold(_UPLOAD),
        lambda: stuck.hold(*many),
        lambda: stuck.hold(*long),
    ]

    ready.set()
    go.wait()

    async def all_of_them() -> None:
        await asyncio.gather(*(kind() for _ in range(of_each) for kind in kinds), return_exceptions=True)

    asyncio.run(all_of_them())


async def _watch(plane: Plane, calm: Model, seen: Seen, seconds: float) -> float:
    """Look at the memory, and ask as a well-behaved client does, for so long; return its longest wait, in seconds."""
    clock = asyncio.get_running_loop().time
    ends, waits = clock() + seconds, list[float]()

    async def ask() -> None:
        while (began := clock()) < ends:
            await _ask(plane, calm, seen)
            waits.append(clock() - began)
            await asyncio.sleep(_LOOKS_EVERY)

    asking = asyncio.create_task(ask())
    while not asking.done():
        await asyncio.sleep(_LOOKS_EVERY)
        seen.most = max(seen.most, plane.envoy.process.usage.resident_bytes())
    await asking
    return max(waits)


async def _ask(plane: Plane, calm: Model, seen: Seen) -> str:
    try:
        async with asyncio.timeout(_ANSWERED_WITHIN):
            answer = str((await plane.ask(calm)).status)
    except (TimeoutError, httpx.HTTPError) as error:
        answer = type(error).__name__
    seen.told[answer] += 1
    return answer


async def _served_again(plane: Plane, calm: Model, seen: Seen) -> None:
    async def is_served() -> bool:
        seen.after = await _ask(plane, calm, Seen(seen.bound))
        return seen.after == "200"

    with contextlib.suppress(AssertionError):
        await until(is_served, "it is served again")


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--clients", type=click.IntRange(_KINDS, 5_000), default=1_000, show_default=True, help="How many come.")
@click.option(
    "--memory", "mib", type=click.IntRange(150, 16_384), default=300, show_default=True, help="The bound, in MiB."
)
@click.option("--seconds", type=click.FloatRange(1, 600), default=20.0, show_default=True, help="How long they stay.")
def main(clients: int, mib: int, seconds: float) -> None:
    """Send an Envoy a thousand clients that drip headers, upload, and read nothing, and look at its memory.

    Together they ask for about two GiB. The Envoy has the overload manager that `beamlit envoy` gives it.
    """
    sys.exit(asyncio.run(until_signalled(run(mib * MIB, clients, seconds))))


if __name__ == "__main__":
    main()
