"""Clients of an xDS server that mean harm, in a process of their own: what they do, and that they do it when told."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from multiprocessing.connection import Connection
from typing import NamedTuple

import grpc
from envoy.service.discovery.v3 import discovery_pb2
from google.rpc import status_pb2

from benchmarks import load_reports
from benchmarks.joins import TOKEN
from tests.support.protocol import attacks
from tests.support.protocol.attacks import DELTA, FAMILIES, LOADS, SOTW
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, ROUTE
from xds_server.stream.limits import LONGEST_TEXT, OF_MEMBERS

_FETCH = "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters"
_STRANGER = "another"
_STAYS = 1.0
_NAMED_AT_ONCE = 100
"""Resources whose names are in the text of one refusal: what is taken of it has room for them."""
_FILLER = "x" * LONGEST_TEXT


class Kind(NamedTuple):
    """What hostile clients do: an attack of a family with a token, or without a family one of `OWN`."""

    name: str
    family: str = ""
    token: str = TOKEN

    @property
    def label(self) -> str:
        """Return what it is called in the table."""
        whose = "stranger" if self.token == _STRANGER else "member"
        return f"{self.family}: {self.name}, {whose}" if self.family else self.name


def kinds() -> Iterator[Kind]:
    """Yield all that hostile clients do, in this order; nothing comes first."""
    yield NOBODY
    for family in FAMILIES:
        for token in (TOKEN, _STRANGER):
            yield from (Kind(name, family.name, token) for name in family.attacks)
    yield from (Kind(name) for name in OWN if name != NOBODY.name)


def be_hostile(port: int, orders: Connection) -> None:
    """Do what is ordered, one thing after another, until this process is killed."""
    while True:
        kind, clients, seconds = orders.recv()
        orders.send(asyncio.run(_do(port, kind, clients, seconds)))


async def _do(port: int, kind: Kind, clients: int, seconds: float) -> Counter[str]:
    """Have so many clients do it for so long, once at least; return how their streams ended."""
    ended, ends = Counter[str](), time.monotonic() + seconds
    work = OWN.get(kind.name) if not kind.family else functools.partial(_attack, kind=kind)
    assert work is not None

    async def again_and_again() -> None:
        while True:
            ended[await work(port)] += 1
            if time.monotonic() >= ends:
                return

    await asyncio.gather(*(again_and_again() for _ in range(clients)))
    return ended


async def _attack(port: int, kind: Kind) -> str:
    (method,) = (one.method for one in FAMILIES if one.name == kind.family)
    return await _say(port, method, _message(kind))


@functools.cache
def _message(kind: Kind) -> bytes:
    (family,) = (one for one in FAMILIES if one.name == kind.family)
    return family.attacks[kind.name](kind.token)


@functools.cache
def _most(method: str) -> bytes:
    (family,) = (one for one in FAMILIES if one.method == method)
    return family.most(TOKEN)


@functools.cache
def _claims() -> bytes:
    claimed = {f"{number:x}": "1" for number in range(OF_MEMBERS.names - 1)}
    said: bytes = attacks.delta(
        TOKEN, resource_names_subscribe=["*"], initial_resource_versions=claimed
    ).SerializeToString()
    return said


@functools.cache
def _lists() -> bytes:
    names = range(OF_MEMBERS.names)
    said: bytes = attacks.delta(
        TOKEN,
        resource_names_subscribe=[f"{number:x}" for number in names],
        resource_names_unsubscribe=[f"u{number:x}" for number in names],
        initial_resource_versions={f"{number:x}": "1" for number in names},
    ).SerializeToString()
    return said


@functools.cache
def _report() -> bytes:
    return load_reports.report(len(load_reports.MODELS), TOKEN)


def _connected(port: int) -> contextlib.AbstractAsyncContextManager[grpc.aio.Channel]:
    """Have a connection of one's own."""
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
    channel: contextlib.AbstractAsyncContextManager[grpc.aio.Channel]
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}", options)
    return channel


async def _say(port: int, method: str, raw: bytes) -> str:
    """Say this, read all of the answer, and return how the stream ended."""
    async with _connected(port) as channel:
        call = channel.stream_stream(method)()
        # The server may end the stream at any moment.
        with contextlib.suppress(grpc.aio.AioRpcError, asyncio.InvalidStateError):
            await call.write(raw)
            await call.done_writing()
            while await call.read() is not grpc.aio.EOF:
                pass
        return str((await call.code()).name)


async def _fetch(port: int) -> str:
    async with _connected(port) as channel:
        await channel.unary_unary(_FETCH)(b"")
    return "OK"


async def _refuse(port: int) -> str:
    """Join, and refuse all that comes with as much text as is taken, ten times."""
    text = " ".join(f"default/model-{number}" for number in range(1000))
    async with _connected(port) as channel:
        call = channel.stream_stream(DELTA)()
        await call.write(attacks.delta(TOKEN, resource_names_subscribe=["*"]).SerializeToString())
        for _ in range(10):
            nonce = discovery_pb2.DeltaDiscoveryResponse.FromString(await call.read()).nonce
            await call.write(_refusal(nonce, text))
        call.cancel()
    return "left"


async def _refuse_each(port: int) -> str:
    """Join, accept one answer, refuse all clusters by their names, and stay for a moment."""
    async with _connected(port) as channel:
        call = channel.stream_stream(DELTA)()
        await call.write(attacks.delta(TOKEN, resource_names_subscribe=["nothing"]).SerializeToString())
        nonce = discovery_pb2.DeltaDiscoveryResponse.FromString(await call.read()).nonce
        accepted = discovery_pb2.DeltaDiscoveryRequest(
            type_url=CLUSTER, response_nonce=nonce, resource_names_subscribe=["*"]
        )
        await call.write(accepted.SerializeToString())
        left = True
        while left:
            answer = discovery_pb2.DeltaDiscoveryResponse.FromString(await call.read())
            names = [one.name for one in answer.resources]
            text = " ".join(names[:_NAMED_AT_ONCE])
            await call.write(_refusal(answer.nonce, f"{text} {_FILLER}"))
            left = len(names) > _NAMED_AT_ONCE
        await asyncio.sleep(_STAYS)
        call.cancel()
    return "left"


async def _ask_while_much_waits(port: int) -> str:
    """Claim clusters that nobody has, and a route that may require each: they stay, and wait. Then say little."""
    async with _connected(port) as channel:
        call = channel.stream_stream(DELTA)()
        await call.write(_claims())
        nonce = discovery_pb2.DeltaDiscoveryResponse.FromString(await call.read()).nonce
        await call.write(
            discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=nonce).SerializeToString()
        )
        gone = discovery_pb2.DeltaDiscoveryRequest(
            type_url=ROUTE, resource_names_subscribe=["gone"], initial_resource_versions={"gone": "1"}
        )
        await call.write(gone.SerializeToString())
        for _ in range(20):
            little = discovery_pb2.DeltaDiscoveryRequest(type_url=ENDPOINT, resource_names_subscribe=["nothing"])
            await call.write(little.SerializeToString())
        await asyncio.sleep(_STAYS)
        call.cancel()
    return "left"


def _refusal(nonce: str, text: str) -> bytes:
    """Write a NACK with as much of a text as is taken."""
    error = status_pb2.Status(code=13, message=text[:LONGEST_TEXT])
    refusal = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, response_nonce=nonce, error_detail=error)
    said: bytes = refusal.SerializeToString()
    return said


async def _say_nothing(port: int) -> str:
    """Open a hundred connections, and leave: with four clients at once they are 400."""
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(socket.create_connection(("127.0.0.1", port)))
        await asyncio.sleep(_STAYS)
    return "left"


async def _nothing(_: int) -> str:
    await asyncio.sleep(_STAYS)
    return "rested"


NOBODY = Kind("nobody comes")
OWN: Mapping[str, Callable[[int], Awaitable[str]]] = {
    NOBODY.name: _nothing,
    "delta: all names that are taken": lambda port: _say(port, DELTA, _most(DELTA)),
    "delta: all versions that are taken": lambda port: _say(port, DELTA, _claims()),
    "delta: all lists that are taken": lambda port: _say(port, DELTA, _lists()),
    "delta: little is asked while much waits": _ask_while_much_waits,
    "sotw: all names that are taken": lambda port: _say(port, SOTW, _most(SOTW)),
    "loads: all clusters that are taken": lambda port: _say(port, LOADS, _most(LOADS)),
    "loads: 1,000 models": lambda port: _say(port, LOADS, _report()),
    "everything is refused, in 4 KB of text": _refuse,
    "each cluster is refused, in 4 KB of text": _refuse_each,
    "everything is fetched": _fetch,
    "connections that say nothing": _say_nothing,
}
