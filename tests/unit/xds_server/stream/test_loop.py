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
from xds_server.stream.server.loop import DELTA, StreamLoop
from xds_server.stream.server.metrics import Metrics
from xds_server.stream.server.owner import MAX_TYPES_PER_STREAM, Owner


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
async def owner(timing):
    owner = Owner("test", "token", lambda _: None, Metrics(CollectorRegistry()), timing)
    owner.publish(Snapshot.of([cluster("a")]), [])
    task = asyncio.create_task(owner.run())
    yield owner
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def asks_for(type_url):
    return discovery_pb2.DeltaDiscoveryRequest(type_url=type_url, resource_names_subscribe=["x"])


@pytest.mark.parametrize("timing", [StreamTiming(stall=0.01)])
async def test_x49_a_client_that_does_not_read_is_cut_off_after_a_deadline(owner):
    context = Context(asks_for(CLUSTER), reads=False)
    with pytest.raises(AbortedError):
        await StreamLoop(owner, DELTA, "server").serve(None, context)
    assert context.aborted is grpc.StatusCode.DEADLINE_EXCEEDED
    assert owner.clients() == ()


async def test_a_client_that_asks_for_endless_types_is_cut_off(owner):
    context = Context(*(asks_for(f"type.googleapis.com/t{n}") for n in range(MAX_TYPES_PER_STREAM + 2)))
    with pytest.raises(AbortedError):
        await StreamLoop(owner, DELTA, "server").serve(None, context)
    assert context.aborted is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_cancelled_stream_is_forgotten_and_says_so(owner):
    stream = asyncio.create_task(StreamLoop(owner, DELTA, "server").serve(None, Context(asks_for(CLUSTER))))
    async with asyncio.timeout(PATIENCE):
        while not owner.clients():  # noqa: ASYNC110 - the condition is what another task does
            await asyncio.sleep(0)
    stream.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stream
    assert owner.clients() == ()
