"""One gRPC stream, with a context that does what the test says."""

import asyncio

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from prometheus_client import CollectorRegistry
from scripted import cluster

from controller.api.timing import REAL, StreamTiming
from tests.support.waiting import PATIENCE
from xds_server.snapshot.snapshot import CLUSTER, Snapshot
from xds_server.stream.admission import ClientAdmission
from xds_server.stream.server.clients import ClientTelemetry
from xds_server.stream.server.services import DELTA, StreamingMethod
from xds_server.stream.server.sessions import MAX_TYPES_PER_STREAM, Sessions


class AbortedError(Exception):
    pass


class Context:
    """A gRPC stream whose client sends `requests` and then waits; it reads only if `reads`."""

    def __init__(self, *requests, reads=True):
        self.requests = [request.SerializeToString() for request in requests]
        self.reads = reads
        self.aborted = None

    def peer(self):
        return "test"

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
    assert sessions.clients() == ()


async def test_a_client_that_asks_for_endless_types_is_cut_off(sessions):
    context = Context(*(asks_for(f"type.googleapis.com/t{n}") for n in range(MAX_TYPES_PER_STREAM + 2)))
    with pytest.raises(AbortedError):
        await StreamingMethod(sessions, DELTA, "server").serve(None, context)
    assert context.aborted is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_cancelled_stream_is_forgotten_and_says_so(sessions):
    stream = asyncio.create_task(StreamingMethod(sessions, DELTA, "server").serve(None, Context(asks_for(CLUSTER))))
    async with asyncio.timeout(PATIENCE):
        while not sessions.clients():  # noqa: ASYNC110 - the condition is what another task does
            await asyncio.sleep(0)
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    assert sessions.clients() == ()
