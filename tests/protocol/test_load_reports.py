"""X54: load reporting over a socket, with a client that is played by hand."""

from collections import Counter

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.load_stats.v3 import lrs_pb2

from controller.api.timing import REAL, StreamTiming
from tests.support.protocol.xds_client import TOKEN, Client, Served, resource
from tests.support.waiting import PATIENCE, time_limit, until
from xds_server.snapshot.scope import Role, Scope
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, Snapshot
from xds_server.stream.load_reporting.wire import SUPPORTS_ALL
from xds_server.stream.server.server import XdsServer


class LoadClient(Client):
    method = "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats"
    response_type = lrs_pb2.LoadStatsResponse

    def __init__(self, port, node_id="envoy-1", token=TOKEN, *features):
        super().__init__(port, node_id, token)
        self._node.client_features.extend(features)

    async def report(self, **issued: int) -> "LoadClient":
        request = lrs_pb2.LoadStatsRequest()
        for cluster, count in issued.items():
            stats = request.cluster_stats.add(cluster_name=cluster)
            stats.upstream_locality_stats.add(total_issued_requests=count)
        await self.send(request)
        return self

    async def told(self) -> tuple[bool, list[str], float]:
        said = await self.receive()
        interval = said.load_reporting_interval.ToTimedelta().total_seconds()
        return said.send_all_clusters, list(said.clusters), interval


class Heard:
    """What the server says it was told."""

    def __init__(self):
        self.reports = []
        self.over = []

    def report_received(self, stream, report, now):
        clusters = report.busy
        if any(one.cluster == "trouble" for one in clusters):
            raise RuntimeError("trouble")
        yield
        self.reports.append((stream, {one.cluster: one.localities[0].issued for one in clusters}))

    def stream_ended(self, stream, now):
        self.over.append(stream)


class ServedLoads(Served):
    def __init__(self, token=TOKEN, timing=REAL.streams):
        super().__init__()
        self.heard = Heard()
        self.server = XdsServer(token, self.events.append, None, self.heard, timing)

    def loads(self, *features, **who) -> LoadClient:
        client = LoadClient(self.port, who.get("node_id", "envoy-1"), who.get("token", TOKEN), *features)
        return self._opened(client)


@pytest.fixture
async def served():
    served = ServedLoads()
    served.port = await served.server.start("127.0.0.1:0")
    yield served
    await served.stop()


async def told_of(served, *clusters) -> LoadClient:
    """A client that is told of each change: to whom it happens that others are told nothing of."""
    other = served.loads(node_id="told")
    await other.report()
    assert await other.told() == (False, list(clusters), 1.0)
    return other


async def test_x54_a_client_that_can_is_asked_for_all_clusters_once(served):
    served.publish(resource(CLUSTER, "a"))
    client = served.loads(SUPPORTS_ALL)
    await client.report()
    assert await client.told() == (True, [], 1.0)
    await client.report(a=1)
    other = await told_of(served, "a")
    served.publish(resource(CLUSTER, "b"))
    assert await other.told() == (False, ["a", "b"], 1.0)
    await client.silence()


async def test_x54_another_is_told_the_clusters_and_again_when_they_change(served):
    served.publish(resource(CLUSTER, "b"), resource(CLUSTER, "a"))
    client = served.loads()
    await client.report()
    assert await client.told() == (False, ["a", "b"], 1.0)
    await client.report(a=1, b=2)
    served.publish(resource(ENDPOINT, "a"))
    served.publish(resource(CLUSTER, "a", "2"))
    await client.silence()
    served.publish(removed=[resource(CLUSTER, "b").key])
    assert await client.told() == (False, ["a"], 1.0)


async def test_x54_a_client_is_told_the_clusters_of_its_scope_only(served):
    served.publish(resource(CLUSTER, "a"))
    mine = resource(CLUSTER, "b")
    served.server.publish(Snapshot.of([mine]), frozenset([mine.key]), Scope(Role.SIDECAR, "ns"))
    gateway, sidecar = served.loads(), served.loads().saying(role="sidecar", namespace="ns")
    for client, cluster in ((gateway, "a"), (sidecar, "b")):
        await client.report()
        assert await client.told() == (False, [cluster], 1.0)


async def test_x54_while_there_are_no_clusters_nobody_is_told_to_end_reporting(served):
    served.publish()
    client = served.loads()
    await client.report()
    await client.silence()
    served.publish(resource(CLUSTER, "a"))
    assert await client.told() == (False, ["a"], 1.0)


async def test_x01_the_first_message_says_who_it_is_and_later_ones_need_not(served):
    served.publish(resource(CLUSTER, "a"))
    client = served.loads(SUPPORTS_ALL, node_id="gateway-7")
    await client.report()
    await client.report(a=3)
    await until(lambda: len(served.heard.reports) == 2, "2 reports are told")
    (first, nothing), (second, three) = served.heard.reports
    assert (first.node, first, nothing, three) == ("gateway-7", second, {}, {"a": 3})
    assert first.began > 1_700_000_000


async def test_bytes_that_are_no_report_end_that_stream_only(served):
    served.publish()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        call = channel.stream_stream(LoadClient.method)()
        await call.write(b"\xff\xff\xff")
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_readers_and_strangers_are_answered_and_do_not_count(served):
    served.publish(resource(CLUSTER, "a"))
    for who in ({"node_id": "debug/me"}, {"node_id": ""}, {"token": "another"}):
        client = served.loads(SUPPORTS_ALL, **who)
        await client.report(a=1)
        await client.told()
    # To name all clusters would be work, for nothing.
    nobody = served.loads()
    nobody._node = base_pb2.Node()
    await nobody.report()
    other = await told_of(served, "a")
    await nobody.silence()
    served.publish(resource(CLUSTER, "b"))
    assert await other.told() == (False, ["a", "b"], 1.0)
    await nobody.silence()
    last = served.loads(SUPPORTS_ALL)
    await last.report()
    await until(lambda: "envoy-1" in {stream.node for stream, _ in served.heard.reports}, "a report is told")
    assert {stream.node for stream, _ in served.heard.reports} == {"envoy-1", "told"}


async def test_where_no_token_is_everybody_counts():
    served = ServedLoads(token="")
    served.port = await served.server.start("127.0.0.1:0")
    try:
        served.publish()
        await served.loads(SUPPORTS_ALL, token="").report()
        await until(lambda: served.heard.reports, "a report is told")
    finally:
        await served.stop()


async def test_before_anything_is_served_reports_wait_and_are_not_lost(served):
    client = served.loads(SUPPORTS_ALL)
    await client.report(a=5)
    # Whoever asks something else meanwhile has an answer, again and again.
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        for _ in range(10):
            await channel.unary_unary("/grpc.health.v1.Health/Check")(b"")
    assert served.heard.reports == []
    served.publish(resource(CLUSTER, "a"))
    await until(lambda: served.heard.reports, "a report is told")
    assert served.heard.reports[0][1] == {"a": 5}


async def test_streams_of_one_node_have_different_beginnings(served):
    served.publish()
    clients = [served.loads(SUPPORTS_ALL) for _ in range(3)]
    for client in clients:
        await client.report()
    await until(lambda: len(served.heard.reports) == 3, "3 reports are told")
    assert len({stream.began for stream, _ in served.heard.reports}) == 3


async def test_a_stream_that_ends_is_said_to(served):
    served.publish()
    client = served.loads(SUPPORTS_ALL)
    await client.report()
    await client.told()
    assert await client.end() is grpc.StatusCode.OK
    await until(lambda: served.heard.over, "the end is told")


async def test_a_server_that_goes_away_ends_its_streams(served):
    served.publish()
    client = served.loads(SUPPORTS_ALL)
    await client.report()
    await client.told()
    await served.server.stop(5.0)
    assert await client.call.code() is grpc.StatusCode.OK
    await until(lambda: served.heard.over, "the end is told")


async def test_a_stream_ends_well_also_while_its_first_message_is_on_its_way(served):
    served.publish()
    codes = Counter()
    for _ in range(100):
        client = await served.loads(SUPPORTS_ALL).report()
        async with time_limit(PATIENCE):
            await client.call.done_writing()
            while await client.call.read() is not grpc.aio.EOF:
                pass
            codes[await client.call.code()] += 1
    assert codes == {grpc.StatusCode.OK: 100}


async def test_a_report_that_nobody_can_take_ends_nothing(served):
    served.publish()
    client = served.loads(SUPPORTS_ALL)
    await client.report()
    await client.report(trouble=1)
    await client.report(a=1)
    await until(lambda: len(served.heard.reports) == 2, "2 reports are told")
    assert served.heard.reports[1][1] == {"a": 1}


async def test_x54_a_client_that_reports_more_often_than_it_was_asked_to_is_heard_no_more_often():
    served = ServedLoads(timing=StreamTiming(loads_every=10 * PATIENCE))
    served.port = await served.server.start("127.0.0.1:0")
    try:
        served.publish(resource(CLUSTER, "a"))
        often, other = served.loads(), served.loads(node_id="envoy-2")
        for _ in range(3):
            await often.report(a=1)
        await until(lambda: served.heard.reports, "it is heard")
        await other.report(a=1)
        await until(lambda: len(served.heard.reports) > 1, "another one is heard meanwhile")
        assert Counter(stream.node for stream, _ in served.heard.reports) == {"envoy-1": 1, "envoy-2": 1}
    finally:
        await served.stop()
