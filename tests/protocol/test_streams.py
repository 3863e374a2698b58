"""Statements of docs/xds.md that need a socket, and the server's own promises."""

import asyncio
import logging

import grpc
import pytest
from envoy.service.discovery.v3 import discovery_pb2
from grpc_health.v1 import health_pb2
from prometheus_client import CollectorRegistry

from tests.support.protocol.xds_client import TOKEN, DeltaClient, Served, model, resource
from tests.support.waiting import until
from xds_server.snapshot.scope import Role, Scope
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, SECRET, Snapshot
from xds_server.stream.server.server import AddressInUseError, XdsServer


async def follow_a_model(client, name="m"):
    """What Envoy does from its start until it serves one model."""
    await client.subscribe(CLUSTER)
    await (await client.expect(CLUSTER, name)).ack()
    await client.subscribe(ENDPOINT, name)
    await (await client.expect(ENDPOINT, name)).ack()
    await client.subscribe(LISTENER)
    await (await client.expect(LISTENER, name)).ack()
    await client.subscribe(ROUTE, name)
    await (await client.expect(ROUTE, name)).ack()


async def test_a_model_comes_and_a_second_one_joins_it(served):
    served.publish(*model("m"))
    client = served.delta()
    await follow_a_model(client)
    served.publish(*model("n"))
    await (await client.expect(CLUSTER, "n")).ack()
    await (await client.expect(LISTENER, "n")).ack()
    # And no more: what comes next is of something else.
    await client.silence()
    served.publish(resource(CLUSTER, "o"))
    await client.expect(CLUSTER, "o")


async def test_x01_x15_the_client_is_known_by_the_node_of_its_first_request(served):
    served.publish(*model("m"))
    client = served.delta("gateway-7")
    await follow_a_model(client)
    await until(lambda: served.server.clients()[0].initialised, "the client is initialised")
    (state,) = served.server.clients()
    assert (state.node_id, state.protocol, state.is_debug) == ("gateway-7", "delta", False)
    assert state.authorised
    assert TOKEN not in repr(state) + repr(served.events)


async def test_who_joins_with_a_part_of_everything_counts_for_all_of_it_from_one_moment_on(served):
    """It acknowledges what is new to it alone; for the rest it counts from the same moment on, and that is said."""
    old, new = model("old"), model("new")
    served.publish(*old, *new)
    has = {"old": next(one.version for one in old if one.key.type_url == CLUSTER)}
    client = served.delta()
    await client.subscribe(CLUSTER, "*", claims=has)
    first = await client.expect(CLUSTER, "new")
    assert [event.kind for event in served.events] == ["connected"]
    await first.ack()
    await until(lambda: served.server.clients()[0].initialised, "the client is initialised")
    said = [(event.kind, {key.name for key in event.keys}) for event in served.events]
    assert said == [("connected", set()), ("initialised", set()), ("acknowledged", {"new"})]


async def test_x02_a_missing_type_ends_that_stream_only(served):
    served.publish(*model("m"))
    good, bad = served.delta(), served.delta("bad")
    await good.subscribe(CLUSTER)
    await bad.subscribe("")
    assert await bad.call.code() is grpc.StatusCode.INVALID_ARGUMENT
    await good.expect(CLUSTER, "m")


async def test_bytes_that_are_no_request_end_that_stream_only(served):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        call = channel.stream_stream(DeltaClient.method)()
        await call.write(b"\xff\xff\xff")
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_x06_x07_responses_carry_type_and_a_stable_identifier(served):
    served.publish(*model("m"))
    client, reader = served.delta(), served.sotw()
    await client.subscribe(CLUSTER)
    await reader.subscribe(LISTENER)
    first, second = await client.receive(), await reader.receive()
    assert first.control_plane.identifier == second.control_plane.identifier != ""
    assert first.resources[0].resource.type_url == CLUSTER


async def test_x15_a_rejection_is_told_and_visible(served):
    served.publish(*model("m"))
    client = served.delta()
    await client.subscribe(LISTENER)
    await client.expect(LISTENER, "m")
    await client.nack("cannot bind")
    await until(lambda: served.events[-1].kind == "rejected", "the rejection is told")
    assert {key.name for key in served.events[-1].keys} == {"m"}
    (state,) = served.server.clients()
    assert [(r.key.name, r.message) for r in state.rejections] == [("m", "cannot bind")]


async def test_holds_says_what_each_client_has_acked(served):
    served.publish(*model("m"))
    client = served.delta()
    await follow_a_model(client)
    wanted = [(r.key, r.version) for r in model("m")]
    await until(lambda: served.server.holds(wanted)[0].complete, "the client holds the model")
    newer = resource(ROUTE, "m", "2")
    (holding,) = served.server.holds([*wanted, (newer.key, newer.version)])
    assert holding.missing == {newer.key}


async def test_x39_a_reconnecting_client_is_sent_nothing_it_has(served):
    served.publish(*model("m"))
    claims = {"m": resource(CLUSTER, "m").version}
    client = served.delta()
    await client.subscribe(CLUSTER, "*", claims=claims)
    await (await client.expect(CLUSTER)).ack()
    await client.subscribe(ENDPOINT, "m", claims=claims)
    # Requests are answered one after the other: the next one is, and it is the first answer.
    await client.subscribe(LISTENER)
    await client.expect(LISTENER, "m")


async def test_x39_a_server_that_knows_nothing_yet_takes_nothing_away(served):
    client = served.delta()
    await client.subscribe(CLUSTER, "*", claims={"m": resource(CLUSTER, "m").version})
    await client.silence()
    served.publish(*model("m"))
    await client.receive()
    assert (len(client.last.resources), len(client.last.removed_resources)) == (0, 0)


async def test_a_fetch_before_the_first_publish_is_unavailable(served):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        with pytest.raises(grpc.aio.AioRpcError, match="UNAVAILABLE"):
            await channel.unary_unary("/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters")(b"")


async def test_x49_a_stalled_reader_delays_nobody(served):
    served.publish(*(resource(CLUSTER, f"c{n}", "x" * 100_000) for n in range(100)))
    stalled, client = served.delta("debug/stalled"), served.delta("debug/reader")
    await stalled.subscribe(CLUSTER)
    await client.subscribe(ENDPOINT, "m")
    await client.expect(ENDPOINT, removed=("m",))


async def test_x51_a_drained_server_ends_streams_without_an_error(served):
    served.publish(*model("m"))
    client = served.delta()
    await client.subscribe(CLUSTER)
    await client.expect(CLUSTER, "m")
    stopping = asyncio.create_task(served.server.stop(1))
    assert await client.call.code() is grpc.StatusCode.OK
    await stopping


async def test_x52_health_follows_the_first_publish(served):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        check = channel.unary_unary(
            "/grpc.health.v1.Health/Check",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )
        assert (await check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.NOT_SERVING
        served.publish()
        await asyncio.sleep(0)
        assert (await check(health_pb2.HealthCheckRequest())).status == health_pb2.HealthCheckResponse.SERVING


async def test_x52_who_watches_health_learns_that_the_server_stops(served):
    served.publish()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        watch = channel.unary_stream(
            "/grpc.health.v1.Health/Watch",
            health_pb2.HealthCheckRequest.SerializeToString,
            health_pb2.HealthCheckResponse.FromString,
        )(health_pb2.HealthCheckRequest())
        while (await watch.read()).status != health_pb2.HealthCheckResponse.SERVING:
            pass
        stopping = asyncio.create_task(served.server.stop(0.5))
        assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
        await stopping


@pytest.mark.parametrize(("token", "seen"), [(TOKEN, ["s"]), ("guessed", []), ("", [])])
async def test_x57_secrets_need_the_token(served, token, seen, caplog):
    caplog.set_level(logging.DEBUG)
    served.publish(resource(SECRET, "s", "hush"))
    client = served.delta(token=token)
    await client.subscribe(SECRET, "s")
    response = await client.receive()
    assert [r.name for r in response.resources] == seen
    assert list(response.removed_resources) == ([] if seen else ["s"])
    assert TOKEN not in caplog.text
    assert not any(TOKEN in str(vars(record)) for record in caplog.records)


async def test_two_scopes_have_a_snapshot_each(served):
    served.publish(resource(CLUSTER, "gateway"))
    mine = resource(CLUSTER, "sidecar")
    served.server.publish(Snapshot.of([mine]), frozenset([mine.key]), Scope(Role.SIDECAR, "ns"))
    gateway, sidecar = served.delta(), served.delta("sidecar-1").saying(role="sidecar", namespace="ns")
    await gateway.subscribe(CLUSTER)
    await sidecar.subscribe(CLUSTER)
    await gateway.expect(CLUSTER, "gateway")
    await sidecar.expect(CLUSTER, "sidecar")


async def test_a_role_that_is_not_known_ends_that_stream_and_says_which_there_are(served):
    served.publish(resource(CLUSTER, "gateway"))
    client = served.delta().saying(role="router")
    await client.subscribe(CLUSTER)
    assert await client.call.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "gateway, sidecar" in await client.call.details()


@pytest.mark.parametrize(
    ("service", "plural", "type_url"),
    [("cluster", "Clusters", CLUSTER), ("endpoint", "Endpoints", ENDPOINT), ("listener", "Listeners", LISTENER)],
)
async def test_each_type_has_a_service_of_its_own(served, service, plural, type_url):
    served.publish(*model("m"))
    full_name = f"/envoy.service.{service}.v3.{service.title()}DiscoveryService/"
    client = served.sotw("", method=f"{full_name}Stream{plural}")
    await client.subscribe("")
    await client.expect(type_url, b"1")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{served.port}") as channel:
        fetch = channel.unary_unary(
            f"{full_name}Fetch{plural}",
            discovery_pb2.DiscoveryRequest.SerializeToString,
            discovery_pb2.DiscoveryResponse.FromString,
        )
        assert len((await fetch(discovery_pb2.DiscoveryRequest())).resources) == 1
        with pytest.raises(grpc.aio.AioRpcError, match="INVALID_ARGUMENT"):
            await fetch(discovery_pb2.DiscoveryRequest(type_url="other"))


@pytest.mark.parametrize("number", [0, 6000])
async def test_a_client_that_says_no_more_is_answered_and_the_stream_ends_well(served, number):
    """Also where what it said is long, and answered in a step of its own."""
    names = ("*", *(f"n{one}" for one in range(number))) if number else ()
    served.publish(*model("m"))
    client = served.sotw("")
    await client.subscribe(CLUSTER, *names)
    await client.subscribe(ROUTE, *names)
    await client.call.done_writing()
    await client.expect(CLUSTER, b"1")
    await client.expect(ROUTE, b"1")
    assert await client.call.code() is grpc.StatusCode.OK


async def test_a_taken_address_is_a_clear_error(served):
    second = XdsServer(TOKEN, lambda _: None)
    with pytest.raises(AddressInUseError, match=f"127.0.0.1:{served.port}"):
        await second.start(f"127.0.0.1:{served.port}")


async def test_comings_and_goings_are_told_and_counted():
    registry, events = CollectorRegistry(), []
    server = XdsServer(TOKEN, events.append, registry)
    served = Served()
    served.server, served.port = server, await server.start("127.0.0.1:0")
    served.publish(*model("m"))
    client = served.delta("debug/me")
    await follow_a_model(client)
    assert registry.get_sample_value("beamlit_xds_streams", {"type": "ADS"}) == 1
    await until(
        lambda: registry.get_sample_value("beamlit_xds_acks_total", {"type": "RDS"}) == 1,
        "the acknowledgement is counted",
    )
    await client.close()
    await until(lambda: events[-1].kind == "disconnected", "the end is told")
    assert events[0].kind == "connected"
    assert events[0].is_debug
    assert registry.get_sample_value("beamlit_xds_streams", {"type": "ADS"}) == 0
    await served.stop()


async def test_an_observer_that_fails_harms_nobody(caplog):
    def fail(_event):
        raise ZeroDivisionError

    served = Served()
    served.server = XdsServer(TOKEN, fail)
    served.port = await served.server.start("127.0.0.1:0")
    served.publish(*model("m"))
    await follow_a_model(served.delta())
    await served.stop()
    assert "xds observer failed" in caplog.text
