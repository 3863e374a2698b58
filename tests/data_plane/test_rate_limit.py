"""`spec.rateLimit`: what clients ask too often is answered with 429 at the door, and reaches nobody.

Limits of an hour, so that no test has to be quicker than a bucket fills.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from controller.api.contract.rate_limit import RouteRateLimit
from controller.api.contract.reports import Count
from controller.api.timing import StreamTiming, Timing
from tests.support.data_plane.access_log import lines_of
from tests.support.data_plane.backends import Backends
from tests.support.data_plane.model import SHARED_PORT, Model, Wanted
from tests.support.data_plane.plane import AT_ONCE, Plane
from tests.support.waiting import until
from xds_server.resources.access_log import AccessLog
from xds_server.resources.rate_limit import CLIENTS

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEY = "x-api-key"
NO_KEY = b""


@pytest.fixture(scope="module")
def timing() -> Timing:
    return replace(AT_ONCE, streams=StreamTiming(loads_every=0.1))


def hourly(requests: int) -> RouteRateLimit:
    return RouteRateLimit(requests=requests, unit="Hour")


def for_each_address(requests: int) -> RouteRateLimit:
    return RouteRateLimit(requests=requests, unit="Hour", per="ClientAddress")


def for_each_key(requests: int) -> RouteRateLimit:
    return RouteRateLimit(requests=requests, unit="Hour", per="Header", header=KEY)


def limited(*limits: RouteRateLimit, away: int = 0) -> Wanted:
    return Wanted(away=away, rate_limits=limits)


@dataclass(frozen=True)
class Client:
    """Somebody who asks one model at its port, over one connection that is kept."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    @classmethod
    async def of(cls, plane: Plane, model: Model, address: int | None = None) -> Client:
        """Connect, from the address of this number in the network."""
        local = None if address is None else (plane.network.host(address), 0)
        return cls(*await asyncio.open_connection(plane.network.host(1), model.port, local_addr=local))

    async def statuses(self, asked: Sequence[bytes]) -> list[int]:
        """Ask once for each of these headers, one after the other, and return the statuses."""
        return [await self._status(headers) for headers in asked]

    async def _status(self, headers: bytes) -> int:
        self.writer.write(b"GET / HTTP/1.1\r\nhost: a\r\n" + headers + b"\r\n")
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        await self.reader.readexactly(int(head.partition("content-length: ")[2].partition("\r")[0]))
        return int(head.split()[1])


async def statuses(plane: Plane, model: Model, *asked: bytes, address: int | None = None) -> list[int]:
    """Ask over a connection of its own, once for each of these headers."""
    client = await Client.of(plane, model, address)
    try:
        return await client.statuses(asked)
    finally:
        client.writer.close()


def key(value: bytes) -> bytes:
    return KEY.encode() + b": " + value + b"\r\n"


async def test_what_is_above_the_limit_is_refused_and_reaches_nobody(plane: Plane, backends: Backends) -> None:
    """Whichever side it is for: a split has one count, and there is no other side for what is refused."""
    model = await plane.serve(limited(hourly(10), away=50))
    await plane.healthy(model, 3)

    replies = [await plane.ask(model) for _ in range(16)]

    assert Counter(reply.status for reply in replies) == {200: 10, 429: 6}
    for reply in replies:
        refused = reply.status == 429
        assert (reply.status, len(backends.seen(reply.probe))) == (429, 0) if refused else (200, 1)
        assert reply.header("retry-after") == (["360"] if refused else [])
        assert bool(reply.route) is not refused
    assert await plane.envoy.stat(f"{model.key}.http_local_rate_limit.rate_limited") == 6


async def test_what_is_refused_is_no_demand_and_no_failure(plane: Plane) -> None:
    model = await plane.serve(limited(hourly(5)))
    await plane.healthy(model, 3)
    # What is sent to a cluster that is new to its reports does not count.
    await until(lambda: f"{model.key}/local" in plane.loads.in_flight(asyncio.get_running_loop().time()), "it reports")
    await plane.told_of_loads()

    assert await statuses(plane, model, *[NO_KEY] * 9) == [200] * 5 + [429] * 4

    def ended() -> list[tuple[int, int]]:
        counts = (plane.loads.totals().get(f"{model.key}/{side}", Count()) for side in ("local", "remote"))
        return [(one.succeeded, one.failed) for one in counts]

    await until(lambda: ended() == [(5, 0), (0, 0)], "those that were let in are reported")
    await plane.told_of_loads()
    assert ended() == [(5, 0), (0, 0)]


async def test_the_workers_of_an_envoy_count_together(plane: Plane) -> None:
    model = await plane.serve(limited(hourly(30)))

    seen = await asyncio.gather(*(statuses(plane, model, *[NO_KEY] * 5) for _ in range(10)))

    assert Counter(status for some in seen for status in some) == {200: 30, 429: 20}


async def test_each_address_has_a_limit_of_its_own(plane: Plane) -> None:
    model = await plane.serve(limited(for_each_address(3)))
    for address in (70, 71):
        assert await statuses(plane, model, *[NO_KEY] * 5, address=address) == [200] * 3 + [429] * 2
    # What a client says of its address is not believed.
    said = b"x-forwarded-for: 192.0.2.1\r\n"
    assert await statuses(plane, model, said, address=70) == [429]


async def test_each_value_of_a_header_has_a_limit_of_its_own(plane: Plane) -> None:
    model, next_door = await plane.serve(limited(for_each_key(2))), await plane.serve(limited(for_each_key(2)))
    for one in (b"first", b"second", b"\xff\xfe", b"\xe2\x82\xac", b"z" * 512):
        assert await statuses(plane, model, *[key(one)] * 3) == [200, 200, 429], one
    assert await statuses(plane, model, b"X-API-Key: first\r\n") == [429]
    # Of a header that is there twice, the values are one.
    assert await statuses(plane, model, *[key(b"first") + key(b"again")] * 2, key(b"first,again")) == [200, 200, 429]
    # Another model, which has the same clients, counts by itself.
    assert await statuses(plane, next_door, *[key(b"first")] * 3) == [200, 200, 429]


@pytest.mark.parametrize(
    "unnamed", [NO_KEY, key(b""), key(b"z" * 513), key(b"z" * 50_000), key(b"\xff" * 5_000), key(b"\xe2\x82\xac" * 513)]
)
async def test_who_has_no_name_or_too_long_a_one_is_one_client(plane: Plane, unnamed: bytes) -> None:
    """Leaving the header out is no way around a limit, and nor is a name that nobody can remember."""
    model = await plane.serve(limited(for_each_key(2)))
    assert await statuses(plane, model, NO_KEY, unnamed, unnamed) == [200, 200, 429]
    assert await statuses(plane, model, NO_KEY, key(b"first")) == [429, 200]


async def test_a_request_has_to_be_within_every_limit(plane: Plane) -> None:
    model = await plane.serve(limited(hourly(6), for_each_address(4), for_each_key(3)))
    asked = [key(one) for one in (b"a", b"a", b"a", b"a", b"b", b"b")]
    # The fourth by its key, which costs its address nothing; the last by the address.
    assert await statuses(plane, model, *asked, address=72) == [200, 200, 200, 429, 200, 429]
    # The last by the model.
    assert await statuses(plane, model, key(b"c"), key(b"c"), key(b"d"), address=73) == [200, 200, 429]


async def test_what_another_limit_refuses_may_cost_one_that_fills_more_slowly(plane: Plane) -> None:
    """Envoy asks the limit that fills slowest first, and gives nothing back: docs/data-plane.md says what to do."""
    often = RouteRateLimit(requests=2, unit="Minute", per="Header", header=KEY)
    model = await plane.serve(limited(hourly(6), often))
    # The first client is refused from the third time on, or from a later one if half a minute passes meanwhile.
    assert (await statuses(plane, model, *[key(b"first")] * 6))[:2] == [200, 200]
    assert await statuses(plane, model, key(b"second")) == [429]


async def test_a_header_that_the_gateway_takes_off_or_sets_tells_no_clients_apart(plane: Plane) -> None:
    """So no object may name it."""
    for name in ("x-beamlit-a", "x-envoy-a", "proxy", "x-forwarded-client-cert", "x-forwarded-proto", "keep-alive"):
        model = await plane.serve(limited(RouteRateLimit(requests=1, unit="Hour", per="Header", header=name)))
        asked = [f"{name}: {value}\r\n".encode() for value in ("a", "b")]
        assert await statuses(plane, model, *asked) == [200, 429], name


@pytest.mark.parametrize(("away", "failing"), [(0, "local"), (100, "remote")])
async def test_what_is_sent_again_to_the_other_side_counts_once(plane: Plane, away: int, failing: str) -> None:
    """On either way: through the internal listener of the remote backend, and back from it to the replicas."""
    model = await plane.serve(limited(hourly(2), away=away))
    await plane.healthy(model, 3)
    reply = await plane.ask(model, headers=[(f"on-{failing}", "status=503")])
    assert (reply.status, reply.route) == (200, "remote" if failing == "local" else "local")
    assert await statuses(plane, model, NO_KEY, NO_KEY) == [200, 429]


async def test_so_many_clients_are_remembered_and_no_more(plane: Plane) -> None:
    model = await plane.serve(limited(for_each_key(1)))

    def others(count: int) -> list[bytes]:
        return [key(f"other-{number}".encode()) for number in range(count)]

    assert await statuses(plane, model, key(b"first"), key(b"first")) == [200, 429]
    assert set(await statuses(plane, model, *others(CLIENTS - 1))) == {200}
    assert await statuses(plane, model, key(b"first")) == [429]
    assert Counter(await statuses(plane, model, *others(CLIENTS))) == {429: CLIENTS - 1, 200: 1}
    assert await statuses(plane, model, key(b"first")) == [200]


async def test_both_ports_of_a_model_count_together(plane: Plane) -> None:
    model = await plane.serve(replace(limited(hourly(3)), hosts=("limited.a",)))
    await plane.acknowledged(model)

    async def by_host(host: str) -> int:
        reader, writer = await asyncio.open_connection(plane.network.host(1), SHARED_PORT)
        writer.write(f"GET / HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return int(answer.split()[1])

    # In upper case, too: what is told to a filter is looked up once the host has led to its route.
    assert [await by_host("limited.a"), await by_host("LIMITED.a")] == [200, 200]
    assert await statuses(plane, model, NO_KEY, NO_KEY) == [200, 429]
    assert [await by_host("limited.a"), await by_host("LIMITED.a")] == [429, 429]
    await plane.withdraw(model)


async def test_an_edit_holds_at_once_for_connections_that_are_open(plane: Plane) -> None:
    model = await plane.serve(Wanted(away=0))
    client = await Client.of(plane, model)
    assert await client.statuses([NO_KEY] * 3) == [200] * 3
    for wanted, expected in ((limited(hourly(2)), 429), (Wanted(), 200)):
        listeners = await plane.envoy.stat("listener_manager.listener_modified")
        before = await plane.envoy.stat("listener_manager.listener_in_place_updated")
        model = await plane.change(model, wanted)

        async def is_there(expected: int = expected) -> bool:
            # Its workers learn of a route a moment after it is acknowledged: how many are let in until then varies.
            return await client.statuses([NO_KEY]) == [expected]

        await until(is_there, f"the edit holds: {expected}")
        assert await plane.envoy.stat("listener_manager.listener_modified") == listeners
        assert await plane.envoy.stat("listener_manager.listener_in_place_updated") == before
    client.writer.close()


async def test_a_new_split_begins_the_count_anew(plane: Plane) -> None:
    """The buckets are those of a route configuration: docs/data-plane.md says what that lets through."""
    model = await plane.serve(limited(hourly(2)))
    assert await statuses(plane, model, *[NO_KEY] * 3) == [200, 200, 429]
    model = await plane.change(model, limited(hourly(2), away=1))

    async def begins_anew() -> bool:
        return await statuses(plane, model, NO_KEY) == [200]

    await until(begins_anew, "the count begins anew")


async def test_a_client_of_grpc_is_told_that_a_resource_is_exhausted(plane: Plane) -> None:
    """UNAVAILABLE would have it ask again at once."""
    model = await plane.serve(limited(hourly(1)))
    await plane.ask(model)

    reply = await plane.ask(model, "POST", headers=[("content-type", "application/grpc")])

    assert (reply.status, reply.header("grpc-status"), reply.header("retry-after")) == (200, ["8"], ["3600"])


async def test_the_log_of_failures_does_not_grow_by_what_is_refused(plane: Plane) -> None:
    """Or who is kept from the servers could fill the disk instead. The log of everything has it."""
    for log, lines in ((AccessLog.FAILURES, 1), (AccessLog.ALL, 4)):
        model = await plane.serve(replace(limited(hourly(2)), access_log=log))
        failing = b"on-local: status=500\r\non-remote: status=500\r\n"
        assert await statuses(plane, model, failing, NO_KEY, NO_KEY, NO_KEY) == [500, 200, 429, 429]
        told = await lines_of(plane, model, lines)
        assert Counter(line["flags"] for line in told)["RL"] == (2 if log is AccessLog.ALL else 0)
