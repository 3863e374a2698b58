"""What hostile clients make of the xDS server, and how long another client waits meanwhile.

They replay the attacks of the tests (`tests.support.protocol.attacks`), as strangers and with the node token, a few at
a time and again and again; then what is allowed and dear: all that is taken in one message, refusals, reports of a
thousand models. Connections that say nothing come last.

The server, a second one that nobody attacks, and the hostile clients are processes of their own. This one asks both
servers the same little question every few milliseconds. On a machine that has other work, too, everybody waits: so what
the attacked server lets a client wait is told beside what the other one does at the same time. How long one step of the
event loop takes is measured inside the attacked server, in CPU time of its thread: what else runs does not count. That
is what goes by between two looks; beside it stands the longest callback of it, and what that is a part of.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from statistics import quantiles

import click
import grpc
from envoy.service.discovery.v3 import discovery_pb2

from benchmarks.attackers.steps import LongestSteps, MeasuredLoop
from benchmarks.attackers.xds import Kind, be_hostile, kinds
from benchmarks.hostile import beside
from benchmarks.joins import TOKEN, control_plane_of, follow
from benchmarks.proxies.signals import judged, until_signalled
from controller.programs.lifetime import collect_seldom, log_to_stderr, note_loaded
from tests.support.processes import ProcessEndedError, Usage
from tests.support.protocol.attacks import DELTA, REFUSALS
from tests.support.waiting import until
from xds_server.control_plane import ControlPlane
from xds_server.snapshot.snapshot import ENDPOINT

MIB = 2**20
_ASKS_EVERY = 0.005
_READY_WITHIN = 120.0
_LONGEST_ANSWER = 0.1
_LONGEST_STEP = 0.05
_OF_THE_OTHER = 2
_RETURNS_WITHIN = 60.0
_RETURNS_TO = 1.2

EPILOG = """\b
Exit codes:
  0    every goal is met
  1    a goal is missed
  2    could not run
  130  interrupted (SIGINT, SIGTERM); no process is left behind

\b
Examples:
  make bench NAME=xds_hostile
  python -m benchmarks.xds_hostile --models 50 --seconds 0.2      fewer, quicker
"""


@dataclass
class Waits:
    """How long a client waited for each of its answers, in seconds."""

    each: list[float] = field(default_factory=list)

    @property
    def longest(self) -> float:
        """Return the longest; without an answer there is no end."""
        return max(self.each, default=float("inf"))

    @property
    def p99(self) -> float:
        """Return what 99 of 100 do not reach."""
        return quantiles(self.each, n=100, method="inclusive")[98] if len(self.each) > 1 else self.longest


@dataclass(frozen=True)
class Seen:
    """What was seen while clients did one thing: how their streams `ended`, and what became of others meanwhile.

    `attacked` and `other` are the waits at the server that was attacked and at the other one, `step` is the longest
    step of the loop (seconds of CPU), `memory` what the server has afterwards (bytes), `part` what the longest callback
    of the loop was.
    """

    kind: Kind
    ended: Counter[str]
    attacked: Waits
    other: Waits
    step: float
    memory: int
    part: str = "-"

    @property
    def is_refused(self) -> bool:
        """Whether all that is to be refused was."""
        refusals = {code.name for code in REFUSALS}
        return not self.kind.family or (bool(self.ended) and self.ended.keys() <= refusals)

    @property
    def is_answered(self) -> bool:
        """Whether the other client was answered soon enough, or as soon as this machine lets anybody be."""
        return self.attacked.longest <= max(_LONGEST_ANSWER, _OF_THE_OTHER * self.other.longest)

    def row(self) -> str:
        """Write the line of the table."""
        waits = (self.attacked.p99, self.attacked.longest, self.other.p99, self.other.longest, self.step)
        return (
            f"{self.kind.label:<44}{self.ended.total():>8}"
            + "".join(f"{one * 1000:>9.1f}" for one in waits)
            + f"{self.memory / MIB:>9.0f}   {self.part}"
        )


_HEAD = """\
milliseconds                                           attacked server     other server    step of   memory
                                             streams      p99  longest      p99  longest  the loop      MiB   callback
"""


def goals(seen: Sequence[Seen], before: int, after: int) -> Iterator[tuple[bool, str]]:
    """Say what shall be, with what is, and whether it is so; `before` and `after` are the server's memory."""
    taken = [one.kind.label for one in seen if not one.is_refused]
    yield not taken, f"every attack is refused, but for {len(taken)} of {len(seen)}: {', '.join(taken) or '-'}"
    late = [one.kind.label for one in seen if not one.is_answered]
    longest = max(seen, key=lambda one: one.attacked.longest)
    yield (
        not late,
        f"others are answered in {_LONGEST_ANSWER * 1000:.0f} ms (or {_OF_THE_OTHER} times what the other server "
        f"takes); longest {longest.attacked.longest * 1000:.0f} ms ({longest.kind.label}), above that {len(late)}: "
        f"{', '.join(late) or '-'}",
    )
    long = [one.kind.label for one in seen if one.step > _LONGEST_STEP]
    most = max(seen, key=lambda one: one.step)
    yield (
        not long,
        f"a step of the loop takes {_LONGEST_STEP * 1000:.0f} ms at most; longest {most.step * 1000:.0f} ms "
        f"({most.kind.label}; longest callback {most.part}), above that {len(long)}: {', '.join(long) or '-'}",
    )
    yield (
        after <= _RETURNS_TO * before,
        f"memory is {after / before:.2f} times that of before within {_RETURNS_WITHIN:.0f} s, at most {_RETURNS_TO}",
    )


def _be_server(models: int, port: Synchronized[int], longest: LongestSteps, ready: Event) -> None:
    """Be an xDS server until this process is killed; note the longest steps of its loop."""
    loop = MeasuredLoop(longest)

    async def serve() -> None:
        control_plane = control_plane_of(models)
        control_plane.subscribe(lambda _: note_loaded() if control_plane.published else None)
        port.value = await control_plane.start("127.0.0.1:0")
        await asyncio.gather(control_plane.run(), follow(control_plane), _say_ready(control_plane, ready), loop.note())

    log_to_stderr("error")  # it is told of each refusal
    collect_seldom()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(serve())


async def _say_ready(control_plane: ControlPlane, ready: Event) -> None:
    await until(lambda: control_plane.published, "there is something to serve", within=_READY_WITHIN)
    ready.set()


@contextlib.asynccontextmanager
async def asking(port: int) -> AsyncIterator[Callable[[], Waits]]:
    """Ask a server for a name that nobody has, again and again; each call returns the waits since the one before."""
    waits = Waits()
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")

    async def ask() -> None:
        call, nonce = channel.stream_stream(DELTA)(), ""
        while True:
            request = discovery_pb2.DeltaDiscoveryRequest(
                type_url=ENDPOINT, response_nonce=nonce, resource_names_subscribe=["nothing"]
            )
            if not nonce:
                request.node.id, request.node.metadata["beamlit_token"] = "debug/well-behaved", TOKEN
            began = time.monotonic()
            await call.write(request.SerializeToString())
            answer = discovery_pb2.DeltaDiscoveryResponse.FromString(await call.read())
            waits.each.append(time.monotonic() - began)
            nonce = answer.nonce
            await asyncio.sleep(_ASKS_EVERY)

    def since() -> Waits:
        nonlocal waits
        if asked.done():
            asked.result()
        before, waits = waits, Waits()
        return before

    async with channel:
        asked = asyncio.create_task(ask())
        try:
            yield since
        finally:
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)


async def run(models: int, clients: int, seconds: float) -> int:
    """Let so many clients at once do each thing for so long, tell of it, and return the exit code.

    Raises ProcessEndedError and OSError.
    """
    spawning = get_context("spawn")
    longest, unused = (spawning.RawValue(LongestSteps) for _ in range(2))
    ports, ready = [spawning.Value("i", 0) for _ in range(2)], [spawning.Event() for _ in range(2)]
    orders, theirs = spawning.Pipe()
    with contextlib.ExitStack() as stack:
        server = Usage(stack.enter_context(beside(_be_server, models, ports[0], longest, ready[0])))
        stack.enter_context(beside(_be_server, models, ports[1], unused, ready[1]))
        for one in ready:
            if not await asyncio.to_thread(one.wait, _READY_WITHIN):
                raise ProcessEndedError("a server did not start")
        stack.enter_context(beside(be_hostile, ports[0].value, theirs))

        async def have_done(kind: Kind, how_long: float) -> Counter[str]:
            orders.send((kind, clients, how_long))
            await until(orders.poll, f"they have done it: {kind.label}", within=how_long + _READY_WITHIN)
            ended: Counter[str] = orders.recv()
            return ended

        for kind in kinds():  # once each: what they make a server keep for good is no leak, and messages are written
            await have_done(kind, 0.0)
        seen = []
        before = server.resident_bytes()
        async with asking(ports[0].value) as attacked, asking(ports[1].value) as other:
            click.echo(_HEAD)
            for kind in kinds():
                attacked(), other()
                longest.reset()
                ended = await have_done(kind, seconds)
                waits, step, memory = (attacked(), other()), longest.between, server.resident_bytes()
                seen.append(Seen(kind, ended, *waits, step, memory, str(longest)))
                click.echo(seen[-1].row())
            after = await _returned(server, before)
    click.echo("")
    return judged(goals(seen, before, after))


async def _returned(server: Usage, before: int) -> int:
    """Wait until memory is what it was, but not for long; return what it is."""
    with contextlib.suppress(AssertionError):
        await until(lambda: server.resident_bytes() <= _RETURNS_TO * before, "memory returns", within=_RETURNS_WITHIN)
    return server.resident_bytes()


@click.command(epilog=EPILOG, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--models", type=click.IntRange(1, 5_000), default=1_000, show_default=True, help="What is served.")
@click.option("--clients", type=click.IntRange(1, 20), default=4, show_default=True, help="How many at once.")
@click.option(
    "--seconds", type=click.FloatRange(0, 60), default=2.0, show_default=True, help="How long for each attack."
)
def main(models: int, clients: int, seconds: float) -> None:
    """Attack an xDS server in every way that the tests know, and look whom it answers meanwhile.

    It takes about three minutes.
    """
    sys.exit(asyncio.run(until_signalled(run(models, clients, seconds))))


if __name__ == "__main__":
    main()
