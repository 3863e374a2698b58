"""One gRPC stream, with a context that does what the test says."""

import asyncio
from typing import NamedTuple

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection_pb2
from prometheus_client import CollectorRegistry
from scripted import cluster

from controller.api.timing import REAL, StreamTiming
from tests.support.waiting import PATIENCE, time_limit
from xds_server.snapshot.snapshot import CLUSTER, Snapshot
from xds_server.stream import wire
from xds_server.stream.admission import ClientAdmission
from xds_server.stream.load_reporting.streams import LoadStreams, Unobserved
from xds_server.stream.server.anybody import BoundedReflection
from xds_server.stream.server.services import DialectCodec, StreamingMethod, handlers
from xds_server.stream.server.sessions import MAX_TYPES_PER_STREAM, Sessions
from xds_server.stream.server.telemetry import ClientTelemetry

DELTA = DialectCodec(wire.DeltaParser().parse, wire.pack_delta)


class AbortedError(Exception):
    pass


class Context:
    """A gRPC stream whose client sends `requests` and then waits; it reads only if `reads`."""

    def __init__(self, *requests, reads=True, peer="test"):
        self._peer = peer
        self.requests = [request.SerializeToString() for request in requests]
        self.reads = reads
        self.aborted = None

    def peer(self):
        return self._peer

    async def send_initial_metadata(self, _metadata):
        pass

    async def read(self):
        return self.requests.pop(0) if self.requests else await asyncio.Event().wait()

    async def write(self, _message):
        if not self.reads:
            await asyncio.Event().wait()

    async def abort(self, code, _details):
        self.aborted = code
        raise AbortedError


@pytest.fixture
def timing():
    return REAL.streams


@pytest.fixture
async def sessions(timing):
    sessions = Sessions("test", ClientAdmission("token"), ClientTelemetry(lambda _: None, CollectorRegistry()), timing)
    sessions.publish(Snapshot.of([cluster("a")]), [])
    task = asyncio.create_task(sessions.run())
    yield sessions
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def asks_for(type_url):
    return discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=["x"])


@pytest.mark.parametrize("timing", [StreamTiming(stall=0.01)])
async def test_x49_a_client_that_does_not_read_is_cut_off_after_a_deadline(sessions):
    context = Context(asks_for(CLUSTER), reads=False)
    with pytest.raises(AbortedError):
        await StreamingMethod(sessions, DELTA, "server").serve(None, context)
    assert context.aborted is grpc.StatusCode.DEADLINE_EXCEEDED
    assert sessions.streams.clients() == ()


async def test_a_client_that_asks_for_endless_types_is_cut_off(sessions):
    context = Context(*(asks_for(f"type.googleapis.com/t{n}") for n in range(MAX_TYPES_PER_STREAM + 2)))
    with pytest.raises(AbortedError):
        await StreamingMethod(sessions, DELTA, "server").serve(None, context)
    assert context.aborted is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_cancelled_stream_is_forgotten_and_says_so(sessions):
    stream = asyncio.create_task(StreamingMethod(sessions, DELTA, "server").serve(None, Context(asks_for(CLUSTER))))
    async with time_limit(PATIENCE):
        while not sessions.streams.clients():  # noqa: ASYNC110 - the condition is what another task does
            await asyncio.sleep(0)
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    assert sessions.streams.clients() == ()


CALLS = 50


async def most_in_one_turn(count, work):
    """How often `count` grew in one turn of the event loop, while all of this work began at once."""
    tasks, most = [asyncio.create_task(one) for one in work], 0
    async with time_limit(PATIENCE):
        while (before := count()) < len(tasks):
            await asyncio.sleep(0)
            most = max(most, count() - before)
    for one in tasks:
        one.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return most


async def test_of_many_clients_that_come_at_once_one_is_read_in_each_turn_of_the_loop(sessions):
    parsed = 0

    def parse(raw):
        nonlocal parsed
        parsed += 1
        return DELTA.parse(raw)

    method = StreamingMethod(sessions, DialectCodec(parse, DELTA.pack), "test")
    request = discovery_pb2.DeltaDiscoveryRequest(type_url=CLUSTER)
    request.node.id = "envoy"
    contexts = [Context(request, peer=f"10.0.0.{number}:1") for number in range(CALLS)]
    assert await most_in_one_turn(lambda: parsed, (method.serve(None, one) for one in contexts)) == 1


async def test_of_many_single_calls_at_once_one_is_answered_in_each_turn_of_the_loop(sessions):
    (fetch,) = (
        handler.unary_unary
        for one in handlers(sessions, LoadStreams(Unobserved(), sessions.admission), "test")
        if (handler := one.service(Called("/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters")))
    )
    answers = []

    async def call(number):
        answers.append(await fetch(b"", Context(peer=f"10.0.0.{number}:1")))

    assert await most_in_one_turn(lambda: len(answers), (call(number) for number in range(CALLS))) == 1


async def test_of_many_questions_at_once_one_is_answered_in_each_turn_of_the_loop(sessions):
    symbol = reflection_pb2.ServerReflectionRequest(file_containing_symbol="envoy.config.core.v3.Node")
    answers, servicer = [], BoundedReflection((), descriptor_pool.Default(), sessions.admission)

    async def asked():
        yield symbol

    async def ask(number):
        answers.extend(
            [one async for one in servicer.ServerReflectionInfo(asked(), Context(peer=f"10.0.0.{number}:1"))]
        )

    assert await most_in_one_turn(lambda: len(answers), (ask(number) for number in range(CALLS))) == 1


async def test_a_stranger_that_waits_for_the_first_snapshot_has_no_other_stranger_wait():
    """Who looks what is wrong while there is nothing to serve is answered."""
    sessions = Sessions("test", ClientAdmission("token"), ClientTelemetry(lambda _: None, CollectorRegistry()))
    async with time_limit(PATIENCE), asyncio.TaskGroup() as tasks:
        begun = [tasks.create_task(one) for one in (sessions.run(), serving(sessions, Context(asks_for(CLUSTER))))]
        for _ in range(50):
            await asyncio.sleep(0)  # until it waits
        assert list(sessions.streams.peers()) == ["test"]
        async with sessions.admission.turn_of_strangers():
            pass
        sessions.publish(Snapshot.of([cluster("a")]), [])
        while not sessions.streams.clients():  # noqa: ASYNC110 - the condition is what another task does
            await asyncio.sleep(0)
        for one in begun:
            one.cancel()


def serving(sessions, context):
    return StreamingMethod(sessions, DELTA, "server").serve(None, context)


class Called(NamedTuple):
    """What gRPC says of a call."""

    method: str
    invocation_metadata: tuple[()] = ()
