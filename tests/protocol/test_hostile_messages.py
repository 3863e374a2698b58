"""A client that means harm is refused with plain words, and costs no more than an honest one."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import resource as resource_module
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from controller.api.timing import StreamTiming
from tests.protocol.test_hostile_connections import ENDED
from tests.support.protocol.attacks import DELTA, FAMILIES, LOADS, REFUSALS, SOTW, delta, sotw
from tests.support.protocol.xds_client import TOKEN, Client, Served, model, resource
from tests.support.waiting import until
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ResourceKey
from xds_server.stream.limits import LONGEST_NAME, LONGEST_TEXT, OF_MEMBERS, OF_STRANGERS

FETCH = "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters"
REFLECTION = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFUSED = grpc.StatusCode.RESOURCE_EXHAUSTED


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """One that waits for its clients: on a busy machine an honest one is late with its first word."""
    served = await Served.start(timing=StreamTiming(handshake=600.0, turn=600.0, first_word=600.0))
    yield served
    await served.stop()


@asynccontextmanager
async def stream(served: Served, method: str = DELTA) -> AsyncIterator[grpc.aio.StreamStreamCall]:
    """A stream that sends bytes as they are."""
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        yield channel.stream_stream(method)()


async def refusal(served: Served, raw: bytes, method: str = DELTA) -> tuple[grpc.StatusCode, str]:
    """How the stream ends of a client that says this."""
    async with stream(served, method) as call:
        await call.write(raw)
        with suppress(grpc.aio.AioRpcError):
            while await call.read() is not grpc.aio.EOF:
                pass  # The end comes behind all that is said before.
        return await call.code(), await call.details()


async def says(served: Served, raw: bytes, method: str) -> None:
    """Say this, have all of the answer, and leave."""
    async with stream(served, method) as call:
        await call.write(raw)
        await call.done_writing()
        async for _ in call:
            pass
        assert await call.code() is grpc.StatusCode.OK, await call.details()


def resident() -> int:
    """The memory of this process, in bytes, without what is kept of what was freed: tests before have left some."""
    ctypes.CDLL(None).malloc_trim(0)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource_module.getpagesize()


async def cost(work: Awaitable[object]) -> float:
    """The CPU time of the thread that all of this runs in, which no other process takes part in."""
    gc.collect()
    begin = time.thread_time()
    await work
    return time.thread_time() - begin


async def costs_less(
    work: Callable[[], Awaitable[object]], honest: Callable[[], Awaitable[object]], before: float
) -> bool:
    """Whether it costs less, in one of three times, than twice what is honest did before or does after it.

    What else the machine does makes nothing cheaper, and both dearer.
    """
    for _ in range(3):
        spent = await cost(work())
        if spent < 2 * before or spent < 2 * await cost(honest()):
            return True
    return False


async def answered(client: Client, of: Callable[[], bool]) -> int:
    """Ask again and again until something is so; return how often there was an answer."""
    count = 0
    while not of():
        await client.subscribe(ENDPOINT, "nothing")
        await (await client.expect(ENDPOINT, removed=("nothing",))).ack()
        count += 1
    return count


@pytest.mark.parametrize("token", [TOKEN, "another"], ids=["member", "stranger"])
@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: one.name)
async def test_x58_whoever_says_too_much_is_refused_and_costs_no_more_than_one_who_says_all_that_is_taken(
    served, family, token
):
    served.publish(*model("m"))
    honest = served.delta("honest")

    def all_that_is_taken() -> Awaitable[object]:
        return says(served, family.most(TOKEN), family.method)

    control = min([await cost(all_that_is_taken()) for _ in range(3)])
    messages = {name: said(token) for name, said in family.attacks.items()}

    async def attacks(name: str) -> None:
        code, words = await refusal(served, messages[name], family.method)
        assert code in REFUSALS, (name, code, words)
        assert any(word in words for word in ("at most", "the most", "larger than max", "does not end")), (name, words)

    async def all_of_them() -> None:
        for name in messages:
            await attacks(name)

    for name in messages:
        assert await costs_less(lambda name=name: attacks(name), all_that_is_taken, control), name
    attacking = asyncio.create_task(all_of_them())
    assert await answered(honest, attacking.done) >= len(messages)
    await attacking
    await until(lambda: {one.node_id for one in served.server.clients()} == {"honest"}, "it is the only one")


@pytest.mark.parametrize("token", [TOKEN, "another"], ids=["member", "stranger"])
async def test_memory_returns(served, token):
    served.publish(*model("m"))
    messages = [(said(token), family.method) for family in FAMILIES for said in family.attacks.values()]

    async def attacked() -> int:
        for raw, method in messages:
            await refusal(served, raw, method)
        await until(lambda: not served.server.clients(), "they are gone")
        return resident()

    gc.collect()
    gc.disable()  # Python looks for garbage seldom where few objects are made, however large they are.
    try:
        # An allocator grows by chunks and keeps them for a while; what is lost is lost in every round, of 80 MB each.
        after = [await attacked() for _ in range(3)]
        while after[-1] - after[-3] > 4 << 20:
            assert len(after) < 12, f"it grows with every round: {after}"
            after.append(await attacked())
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        kinds = Counter(type(one) for one in gc.garbage)
        assert not [kind for kind in kinds if kind.__module__.startswith("xds_server")], "what is left is of gRPC"
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


@pytest.mark.parametrize(
    ("token", "limit"), [(TOKEN, OF_MEMBERS.names), ("another", OF_STRANGERS.names)], ids=["member", "stranger"]
)
async def test_a_client_may_name_so_many_resources_of_a_type_and_no_more_however_it_names_them(served, token, limit):
    served.publish(*model("m"))
    client = served.delta("debug/many", token)
    await client.subscribe(CLUSTER, *(f"{number:x}" for number in range(limit)))
    await client.receive()
    assert len(client.last.removed_resources) == limit
    await client.ack()
    await client.subscribe(ENDPOINT, "one more, of another type")
    await client.receive()
    await client.subscribe(CLUSTER, "one more")
    assert await client.call.code() is REFUSED
    assert f"at most {limit}" in await client.call.details()


async def test_a_stranger_may_say_less_and_is_told_so(served):
    served.publish(*model("m"))
    many = delta("another", resource_names_subscribe=map(str, range(101))).SerializeToString()
    assert await refusal(served, many) == (
        REFUSED,
        "resource_names_subscribe has 101 names; at most 100 are taken from a client without the node token",
    )
    long = delta("another", resource_names_subscribe=["x" * 1_100_000]).SerializeToString()
    code, words = await refusal(served, long)
    assert (code, words.endswith("at most 1048576 are taken from a client without the node token")) == (REFUSED, True)
    fetch = discovery_pb2.DiscoveryRequest(resource_names=map(str, range(101))).SerializeToString()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="at most 100"):
            await channel.unary_unary("/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters")(fetch)


async def test_as_many_names_as_are_taken_are_answered_however_they_are_asked_for(served):
    served.publish(*model("m"))
    asked = sotw(TOKEN, resource_names=["m", *(f"{number:x}" for number in range(OF_MEMBERS.names - 1))])
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        fetched = await channel.unary_unary(FETCH)(asked.SerializeToString())
        call = channel.stream_stream(SOTW)()
        await call.write(asked.SerializeToString())
        streamed = await call.read()
    for answer in map(discovery_pb2.DiscoveryResponse.FromString, (fetched, streamed)):
        assert (len(answer.resources), len(answer.resource_errors)) == (1, OF_MEMBERS.names - 1)


@pytest.mark.parametrize(
    "said",
    [
        {"resource_names_subscribe": ["x" * (LONGEST_NAME + 1)]},
        {"resource_names_unsubscribe": ["x" * (LONGEST_NAME + 1)]},
        {"initial_resource_versions": {"x" * (LONGEST_NAME + 1): "1"}},
        {"initial_resource_versions": {"x": "1" * 1000}},
    ],
)
async def test_a_name_that_nobody_has_is_refused(served, said):
    served.publish(*model("m"))
    code, words = await refusal(served, delta(TOKEN, **said).SerializeToString())
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert next(iter(said)) in words


async def test_a_type_of_any_length_is_not_repeated(served):
    served.publish(*model("m"))
    request = delta(TOKEN)
    request.type_url = "t" * 100_000
    assert await refusal(served, request.SerializeToString()) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "type_url has more than 256 characters",
    )
    method = "/envoy.service.cluster.v3.ClusterDiscoveryService/DeltaClusters"
    request.type_url = "\x1b[31m"
    code, words = await refusal(served, request.SerializeToString(), method)
    assert (code, words.endswith(r"not \x1b[31m")) == (grpc.StatusCode.INVALID_ARGUMENT, True)


async def test_the_text_of_a_refusal_is_cut_and_made_printable(served):
    """Each name of the response is looked for in it, so its length counts as often."""
    served.publish(*(resource(CLUSTER, f"c{number}") for number in range(1000)))
    client = served.delta()
    await client.subscribe(CLUSTER, "*")
    await client.receive()
    await client.nack("c7 \x1b[31mis\nwrong\x00" + "x" * 60_000)
    await until(lambda: served.server.clients()[0].rejections, "it is told")
    (rejection,) = served.server.clients()[0].rejections
    assert rejection.key.name == "c7"
    assert rejection.message.startswith(r"c7 \x1b[31mis wrong\x00xxx")
    assert len(rejection.message) < LONGEST_TEXT + 10
    assert rejection.message.isprintable()


async def test_what_a_client_says_of_itself_is_cut_and_made_printable(served):
    served.publish(*model("m"))
    client = served.delta("envoy\x1b]0;gone\x07\n" + "x" * 1000)
    await client.subscribe(CLUSTER)
    await client.receive()
    (state,) = served.server.clients()
    assert state.node_id.startswith(r"envoy\x1b]0;gone\x07 xxx")
    assert state.node_id.isprintable()
    assert len(state.node_id) < 280


async def test_a_load_report_of_anything_is_refused(served):
    served.publish(*model("m"))
    for raw in (b"\x12\x00" * 2_000_000, b"\x0a\x80\x89\x7a" + b"\x4a\x00" * 1_000_000):
        code, words = await refusal(served, raw, LOADS)
        assert code is REFUSED, words


async def test_strangers_wait_for_each_other_and_others_for_one_of_them_at_most(served):
    """Each of them asks for everything over and over; what somebody else asks comes after one of them."""
    served.publish(*(resource(CLUSTER, f"c{number}", "x" * 1000) for number in range(500)))
    strangers = [served.delta(f"debug/{number}", "another") for number in range(20)]
    member, answers, enough = served.delta(), 0, False
    for one in strangers:
        await one.subscribe(CLUSTER, "*")
        await one.receive()

    async def insists(client: Client) -> None:
        nonlocal answers
        while not enough:
            await client.ack()
            await client.send(discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER, resource_names_unsubscribe=["*"]))
            await client.subscribe(CLUSTER, "*")
            await client.receive()
            answers += 1

    insisting = [asyncio.create_task(insists(one)) for one in strangers]
    await until(lambda: answers > 20, "all of them insist")
    before = answers
    for _ in range(20):
        await member.subscribe(ENDPOINT, "nothing")
        await (await member.expect(ENDPOINT, removed=("nothing",))).ack()
    meanwhile, enough = answers - before, True
    await asyncio.gather(*insisting)
    assert meanwhile < 20 * len(strangers) / 2


async def test_what_anybody_may_ask_is_short(served):
    served.publish(*model("m"))
    asked = reflection_pb2.ServerReflectionRequest(file_by_filename="x" * 5000).SerializeToString()
    code, words = await refusal(served, asked, REFLECTION)
    assert (code, "at most" in words or "more than 4096" in words) == (grpc.StatusCode.INVALID_ARGUMENT, True)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        watch = channel.unary_stream(WATCH)(health_pb2.HealthCheckRequest(service="x" * 300).SerializeToString())
        assert await watch.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_watchers_of_health_are_few_and_count_as_streams(served):
    served.publish(*model("m"))
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        watches = [channel.unary_stream(WATCH)(b"") for _ in range(20)]
        for one in watches:
            assert await one.read() is not grpc.aio.EOF
        for late in (channel.unary_stream(WATCH)(b""), channel.stream_stream(REFLECTION)()):
            assert await late.code() is REFUSED
        with pytest.raises(grpc.aio.AioRpcError, match="20 streams"):
            await channel.unary_unary(FETCH)(b"")
        assert await channel.unary_unary(CHECK)(b"")
        watches[0].cancel()
        await until(lambda: is_let_in(channel), "one is gone")


async def is_let_in(channel: grpc.aio.Channel) -> bool:
    watch = channel.unary_stream(WATCH)(b"")
    return await watch.read() is not grpc.aio.EOF


async def test_x60_what_a_stranger_claims_changes_nothing_that_others_are_told(served):
    served.publish(*model("m"))
    stranger, member = served.delta("your gateway is broken: call 555", "another"), served.delta("gateway-1")
    for client in (stranger, member):
        await client.subscribe(LISTENER, "*")
        await client.receive()
    await stranger.nack("pay here")
    await member.ack()
    key = ResourceKey(LISTENER, "m")
    await until(lambda: [one for one in served.events if one.kind == "acknowledged"], "the member said so")
    assert {one.node_id for one in served.events} == {"gateway-1"}
    told = {one.client.node_id: one.client.counts for one in served.server.holds([(key, "1")])}
    assert told == {"your gateway is broken: call 555": False, "gateway-1": True}


async def test_an_address_has_so_many_streams_without_the_token_and_any_number_with_it(served):
    served.publish(*model("m"))
    strangers = [served.delta(f"debug/{number}", "another") for number in range(20)]
    for one in strangers:
        await one.subscribe(ENDPOINT, "nothing")
        await one.receive()
    late = served.delta("debug/late", "another")
    await late.subscribe(ENDPOINT, "nothing")
    assert await late.call.code() is REFUSED
    assert "20 streams" in await late.call.details()
    for number in range(25):
        member = served.delta(f"gateway-{number}")
        await member.subscribe(ENDPOINT, "nothing")
        await member.receive()
    await strangers[0].close()
    await until(lambda: len(served.server.clients()) == 44, "one is gone")
    again = served.delta("debug/again", "another")
    await again.subscribe(ENDPOINT, "nothing")
    await again.receive()


async def test_a_client_that_never_says_who_it_is_is_sent_away():
    served = await Served.start(timing=StreamTiming(first_word=0.1))
    served.publish(*model("m"))
    try:
        for method in (DELTA, LOADS):
            async with stream(served, method) as call:
                assert await call.code() is grpc.StatusCode.DEADLINE_EXCEEDED
                assert await call.details() == "the client said nothing for 0.1 s"

        async def is_answered() -> bool:
            said = served.delta()
            try:
                await said.subscribe(CLUSTER)
                await said.expect(CLUSTER, "m")
            except ENDED:
                return False
            return True

        # On a busy machine also who says it at once may be too late, and comes again.
        await until(is_answered, "who says it at once is answered")
    finally:
        await served.stop()
