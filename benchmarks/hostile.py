"""What a thousand hostile clients make of one Envoy: whether its memory stays below its bound, and whom it serves.

Each kind of them tries one of the limits in docs/data-plane.md, "What clients may take"; each alone has its test in
tests/data_plane/test_client_limits.py. They are raw sockets, so that the load is the Envoy's.

The hostile clients, the replicas that they keep busy, and that of the well-behaved client are processes of their own:
what that client waits for is the Envoy. On a machine that has other work, too, everybody waits. So it puts the same
question to its replica without the Envoy, at the same times, and both waits are told.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field, replace
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

from benchmarks.proxies.signals import judged, until_signalled
from controller.api.kubernetes.endpoints import Replica
from controller.gateway.bootstrap import HostPort, Provision, bootstrap_for
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import Model, Wanted
from tests.support.data_plane.plane import MEASURED, Plane
from tests.support.envoy import Bootstrap
from tests.support.network import BACKEND_PORT, Network
from tests.support.waiting import until

KIB, MIB = 2**10, 2**20
_KINDS = 5
_LOOKS_EVERY = 0.25
_ANSWERED_WITHIN = 30.0
_ALONE_FOR = 3.0
_READY_WITHIN = 60.0
_LONG = 3600.0
_DID = r"overload_(close|reject|disable)|_stream\.count$|shed_load_count|cx_overflow"
_POST = [(":method", "POST"), (":scheme", "http"), (":authority", "c.test"), (":path", "/a")]
_PART = b"x" * 64 * KIB
_ENDLESS = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % 2**40
_UPLOAD = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % (4 * MIB) + bytes(4 * MIB - 1)
_DOWNLOAD = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n"
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
    direct: float = 0.0
    """The longest that its replica let it wait meanwhile, without the Envoy."""
    did: dict[str, int] = field(default_factory=dict)
    """What the Envoy counted of what it did to bound what it uses."""

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


async def _never_reads(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Take what the kernel takes, and say nothing."""
    with contextlib.closing(writer):
        await asyncio.sleep(_LONG)  # a timer keeps it, where an event of its own would go with it


async def _never_ends(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with as much as is taken."""
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_ENDLESS)
        while True:
            await writer.drain()
            writer.write(_PART)


def _be_replicas(stuck: str, endless: str, ready: Event) -> None:
    """Be the replicas that the hostile clients keep busy, until this process is killed."""

    async def serve() -> None:
        # Where nobody reads, what comes stops at twice the limit.
        one = await asyncio.start_server(_never_reads, stuck, BACKEND_PORT, backlog=1000, limit=KIB)
        other = await asyncio.start_server(_never_ends, endless, BACKEND_PORT, backlog=1000, limit=KIB)
        ready.set()
        await asyncio.gather(one.serve_forever(), other.serve_forever())

    asyncio.run(serve())


@contextlib.contextmanager
def beside(work: Callable[..., None], *arguments: object) -> Iterator[int]:
    """Have this done in a process of its own, whose id is given, and which is killed at the end of the block."""
    process = get_context("spawn").Process(target=work, args=arguments, daemon=True)
    process.start()
    assert process.pid is not None
    try:
        yield process.pid
    finally:
        process.kill()
        process.join()


async def run(bound: int, clients: int, seconds: float) -> int:
    """Let so many clients try for so long, tell of it, and return the exit code. Raises OSError."""
    seen = await play(bound, clients, seconds)
    click.echo(
        f"told   {seen.before // MIB} MiB before they came, {seen.most // MIB} MiB at most, {seen.came} connections"
    )
    click.echo(
        f"told   longest wait {seen.slowest:.2f} s, {seen.slowest / seen.alone:.0f} times that of before; "
        f"of the replica without the Envoy {seen.direct:.2f} s"
    )
    for name, count in sorted(seen.did.items()):
        click.echo(f"told   {name} {count}")
    return judged(seen.goals())


async def play(bound: int, clients: int, seconds: float) -> Seen:
    """Let so many clients try for so long. Raises OSError."""
    seen, network = Seen(bound), Network.unused()

    def provided(bootstrap: Bootstrap) -> None:
        printed = yaml.safe_load(bootstrap_for("", "", HostPort("h", 1), None, Provision(memory=bound)))
        del bootstrap["stats_config"]  # some of what it did is counted only if everything is
        bootstrap["overload_manager"] = printed["overload_manager"]

    spawning = get_context("spawn")
    serving, ready, go = spawning.Event(), spawning.Event(), spawning.Event()
    hosts = network.host(60), network.host(61)
    with (
        tempfile.TemporaryDirectory(prefix="hostile-") as name,
        Backends(network, Path(name)).running() as backends,
        beside(_be_replicas, *hosts, serving),
    ):
        await asyncio.to_thread(serving.wait, _READY_WITHIN)
        async with Plane(network, backends, Path(name), MEASURED).running() as plane:
            await plane.join(change=provided)
            calm = await plane.serve(Wanted(replicas=backends.replicas[:1]))
            stuck, endless = [
                await plane.serve(Wanted(replicas=(Replica(host, BACKEND_PORT, ready=True),)), ready=False)
                for host in hosts
            ]
            for model in (stuck, endless):
                await plane.acknowledged(model)
            seen.before = plane.envoy.process.usage.resident_bytes()
            with beside(_come, [model.url for model in (calm, stuck, endless)], clients // _KINDS, ready, go):
                await asyncio.to_thread(ready.wait, _READY_WITHIN)
                seen.alone, _ = await _watch(plane, calm, Seen(bound), _ALONE_FOR)
                go.set()
                seen.slowest, seen.direct = await _watch(plane, calm, seen, seconds)
                connected = await plane.envoy.stats(r"\.downstream_cx_total$")
                seen.did = {name: count for name, count in (await plane.envoy.stats(_DID)).items() if count}
                models = (calm, stuck, endless)
                seen.came = sum(connected.get(f"http.{model.key}.downstream_cx_total", 0) for model in models)
            await _served_again(plane, calm, seen)
    return seen


def _come(urls: Sequence[str], of_each: int, ready: Event, go: Event) -> None:
    """Be the hostile clients, once told to go and until this process is killed."""
    calm, stuck, endless = map(Client, urls)
    many, long = streams(30, body=128 * KIB), streams(30, headers=48 * KIB)
    kinds: list[Callable[[], Coroutine[Any, Any, None]]] = [
        calm.drip,
        lambda: endless.hold(_DOWNLOAD),
        lambda: stuck.hold(_UPLOAD),
        lambda: stuck.hold(*many),
        lambda: stuck.hold(*long),
    ]

    ready.set()
    go.wait()

    async def all_of_them() -> None:
        await asyncio.gather(*(kind() for _ in range(of_each) for kind in kinds), return_exceptions=True)

    asyncio.run(all_of_them())


async def _watch(plane: Plane, calm: Model, seen: Seen, seconds: float) -> tuple[float, float]:
    """Look at the memory, and ask as a well-behaved client does, for so long.

    Return its longest wait in seconds, and that for the replica itself, which is asked the same without the Envoy.
    """
    clock = asyncio.get_running_loop().time
    ends = clock() + seconds

    async def longest_wait(ask: Callable[[], Awaitable[object]]) -> float:
        longest = 0.0
        while (began := clock()) < ends:
            await ask()
            longest = max(longest, clock() - began)
            await asyncio.sleep(_LOOKS_EVERY)
        return longest

    direct = replace(calm, url=f"http://{plane.backends.local[0].host}:{BACKEND_PORT}/")
    asked = [longest_wait(lambda: _ask(plane, calm, seen)), longest_wait(lambda: _ask(plane, direct, Seen(seen.bound)))]
    asking = asyncio.gather(*asked)
    while not asking.done():
        await asyncio.sleep(_LOOKS_EVERY)
        seen.most = max(seen.most, plane.envoy.process.usage.resident_bytes())
    through, without = await asking
    return through, without


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
