"""A gateway that is stopped under load loses nothing: with the drain of `beamlit envoy`, and without it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import grpc
import pytest

from tests.support.data_plane.answering import CALL, GRPC_PORT, STREAM
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.client_list import NOTHING_CAME, Outcome
from tests.support.data_plane.gateway import Gateway
from tests.support.data_plane.gateways import Site
from tests.support.load import Traffic, closed_loop
from tests.support.waiting import until

DELAYS = (2, 15, 45)
"""Seconds in which a gateway that goes serves new connections. They are long enough for clients to hear of it unless
this machine has a pause: then it is played again with more.
"""


async def played(play: Callable[[Site, int], Awaitable[bool]], backends: Backends, folder: Path) -> None:
    """Play a stop until it was one of which everybody had heard when the delay was over, as the play says."""
    for delay in DELAYS:
        own = folder / f"{delay}"
        own.mkdir()
        async with Site(backends, own) as site:
            if await play(site, delay):
                return
    raise AssertionError(f"it is so with none of the delays {DELAYS}")


def draining(delay: int) -> tuple[object, ...]:
    return "--drain-delay-seconds", delay, "--drain-seconds", delay + 60


async def reached(count: Callable[[], int], goal: int) -> None:
    async def is_so() -> bool:
        return count() >= goal

    await until(is_so, f"{goal} answers", within=60)


def stopped(gateway: Gateway, drained: bool) -> None:
    """Stop a gateway, or its Envoy alone, which nobody drains then."""
    if drained:
        gateway.process.send(signal.SIGTERM)
    else:
        gateway.signal_envoy(signal.SIGTERM)


EITHER = pytest.mark.parametrize("drained", [True, False], ids=["drained", "envoy-alone"])


@EITHER
async def test_a_stop_under_load_fails_nobody(backends: Backends, tmp_path: Path, drained: bool) -> None:
    """Connections kept and new, long requests and streams: Envoy by itself would drop them on SIGTERM."""

    async def play(site: Site, delay: int) -> bool:
        outcome = await _of_clients(site, delay, drained)
        assert not drained or outcome.failed == outcome.unanswered
        return bool(outcome.failed) != drained

    await played(play, backends, tmp_path)


async def _of_clients(site: Site, delay: int, drained: bool) -> Outcome:
    """Stop one of two gateways."""
    leaving, _ = await site.add(*draining(delay)), await site.add(*draining(delay))
    (leaves, _), (stays, _) = site.address(0), site.address(1)
    clients, stop = site.clients(), asyncio.Event()
    answered = clients.outcome.answered
    async with clients.probing(), asyncio.TaskGroup() as load:
        for _ in range(8):
            load.create_task(clients.client("/?seconds=0.05", stop))
            load.create_task(clients.client("/?seconds=0.05", stop, keepalive=False))
            # Longer than the delay that passes before anything is drained.
            load.create_task(clients.client(f"/?seconds={delay + 0.5}", stop))
            load.create_task(clients.client(f"/events?count={10 * delay + 6}&every=0.1", stop))
        await reached(lambda: min(answered[leaves], answered[stays]), 60)
        stopped(leaving, drained)
        await leaving.ended(within=90)
        await reached(lambda: answered[stays], answered[stays] + 60)
        stop.set()
    assert min(answered.values()) > 50
    return clients.outcome


@EITHER
async def test_a_stop_under_load_fails_no_call_of_grpc(backends: Backends, tmp_path: Path, drained: bool) -> None:
    """Over HTTP/2 without TLS: GOAWAY in place of `connection: close`, with calls and streams in flight."""

    async def play(site: Site, delay: int) -> bool:
        failed, are_whole = await _of_calls(site, delay, drained)
        assert are_whole == drained
        return bool(failed) != drained

    await played(play, backends, tmp_path)


async def _of_calls(site: Site, delay: int, drained: bool) -> tuple[list[str], bool]:
    """Stop one of two gateways; return how calls failed, and whether all streams came to their end."""
    leaving, _ = [await site.add(*draining(delay), port=GRPC_PORT) for _ in range(2)]
    messages = 10 * (delay + 1)
    addresses = ",".join(f"{host}:{port}" for host, port in map(site.address, (0, 1)))
    # What never left the client is sent elsewhere by gRPC itself ("transparent retries"), as to any other server.
    options = [("grpc.lb_policy_name", "round_robin"), ("grpc.use_local_subchannel_pool", 1)]
    failed, streams, stop = list[str](), [0] * 9, asyncio.Event()
    answered = 0

    async def call(channel: grpc.aio.Channel) -> None:
        nonlocal answered
        while not stop.is_set():
            try:
                await channel.unary_unary(CALL)(b"0.05")
                answered += 1
            except grpc.aio.AioRpcError as error:
                failed.append(f"{error.code()}: {error.details()}")

    async def stream(channel: grpc.aio.Channel, number: int) -> None:
        try:
            async for _ in channel.unary_stream(STREAM)(b"%d 0.1" % messages):
                streams[number] += 1
        except grpc.aio.AioRpcError as error:
            failed.append(f"{error.code()}: {error.details()}")

    # Those to both may all have begun with the one that stays: this one has not.
    leaves = f"ipv4:{addresses.partition(',')[0]}"
    *channels, of_leaving = [
        await site.enter(grpc.aio.insecure_channel(target, options)) for target in (*[f"ipv4:{addresses}"] * 4, leaves)
    ]
    await asyncio.gather(*(channel.channel_ready() for channel in (*channels, of_leaving)))
    async with asyncio.TaskGroup() as load:
        load.create_task(stream(of_leaving, 8))
        for number, channel in enumerate(channels):
            for which in range(2):
                load.create_task(call(channel))
                load.create_task(stream(channel, 2 * number + which))
        await reached(lambda: min(streams), 1)
        stopped(leaving, drained)
        await leaving.ended(within=90)
        await reached(lambda: answered, answered + 60)
        stop.set()

    return failed, streams == [messages] * 9


async def test_of_two_on_one_port_one_goes(backends: Backends, tmp_path: Path) -> None:
    """The kernel divides connections between them; clients that keep theirs notice nothing."""

    async def play(site: Site, delay: int) -> bool:
        errors = await _of_one_port(site, delay)
        assert errors.keys() <= NOTHING_CAME
        return not errors

    await played(play, backends, tmp_path)


async def _of_one_port(site: Site, delay: int) -> Mapping[str, int]:
    """Stop one of two gateways that share a port; return how requests failed."""
    leaving, staying, stop = await site.add(*draining(delay)), site.join(0, *draining(delay)), asyncio.Event()
    await staying.ready()
    host, port = site.address(0)
    answered = 0

    def count(_: object) -> None:
        nonlocal answered
        answered += 1

    load = closed_loop(f"http://{host}:{port}/", 16, 1_000_000, Traffic(on_sample=count), stop, every=0.02)
    loading = asyncio.create_task(load)
    await reached(lambda: answered, 300)
    leaving.process.send(signal.SIGTERM)
    assert await leaving.ended(within=90) == 0
    await reached(lambda: answered, answered + 300)
    stop.set()
    report = await loading
    assert report.summary.local > 500
    return report.errors
