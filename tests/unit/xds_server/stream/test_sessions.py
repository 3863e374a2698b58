"""The task that holds all sessions: who is sent what is published for which scope."""

import asyncio
import contextlib
import gc
import weakref
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prometheus_client import CollectorRegistry
from scripted import DeltaScript, SotwScript, cluster, endpoints, model, route

from controller.api.timing import REAL
from tests.support.waiting import PATIENCE, time_limit
from xds_server.snapshot.scope import GATEWAY, Role, Scope
from xds_server.snapshot.snapshot import CLUSTER, EMPTY, ENDPOINT, ROUTE, SECRET, Resource, ResourceKey, Snapshot
from xds_server.stream.admission import ClientAdmission, ClientStanding
from xds_server.stream.protocol.messages import DeltaRequest, Output, Rejection, SotwRequest, TooManyNamesError
from xds_server.stream.protocol.parts import MANY
from xds_server.stream.server.clients import ClientStream
from xds_server.stream.server.sessions import NotReadyError, Sessions
from xds_server.stream.server.telemetry import LINES_AT_ONCE, ClientTelemetry
from xds_server.stream.wire import Node

SIDECAR, ANOTHER = Scope(Role.SIDECAR, "ns"), Scope(Role.SIDECAR, "another")
STRANGER, MEMBER = ClientStanding(authorised=False, trusted=False), ClientStanding(authorised=True, trusted=True)
EVERYTHING = DeltaRequest(CLUSTER, subscribe=("*",))


@contextlib.asynccontextmanager
async def running(timing=REAL.streams):
    telemetry = ClientTelemetry(lambda _: None, CollectorRegistry())
    sessions = Sessions("test", ClientAdmission("token"), telemetry, timing)
    task = asyncio.create_task(sessions.run())
    yield sessions
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def sessions():
    async with running() as sessions:
        yield sessions


class Client:
    """A client of some scope that asks for every cluster and ACKs what it gets."""

    def __init__(self, sessions, scope, node_id="envoy", standing=MEMBER):
        self.sessions = sessions
        self.stream = sessions.streams.open("test", None)
        sessions.streams.introduce(self.stream, Node(node_id, token="token", scope=scope), standing)

    async def ask(self, request=EVERYTHING):
        async with time_limit(PATIENCE):
            await self.sessions.handle(self.stream, request)
        return self

    async def receive(self):
        """ACK the next response; return the names it brings and takes away."""
        async with time_limit(PATIENCE):
            response = await self.stream.outbox.get()
        await self.ask(DeltaRequest(CLUSTER, nonce=response.nonce))
        return [one.key.name for one in response.resources], list(response.removed)

    @property
    def hears_nothing(self):
        return self.stream.outbox.empty()


def publish(sessions, scope, *resources):
    sessions.publish(Snapshot.of(resources), [one.key for one in resources], scope)


async def test_two_clients_of_two_scopes_get_each_its_own_only(sessions):
    publish(sessions, GATEWAY, cluster("gateway"))
    publish(sessions, SIDECAR, cluster("sidecar"))
    gateway, sidecar = await Client(sessions, GATEWAY).ask(), await Client(sessions, SIDECAR).ask()
    assert await gateway.receive() == (["gateway"], [])
    assert await sidecar.receive() == (["sidecar"], [])

    changed = cluster("sidecar", "2")
    publish(sessions, SIDECAR, changed)
    assert await sidecar.receive() == (["sidecar"], [])
    assert gateway.hears_nothing

    sessions.publish(EMPTY, [changed.key], SIDECAR)
    assert await sidecar.receive() == ([], ["sidecar"])
    assert gateway.hears_nothing


async def test_x57_a_name_of_another_scope_does_not_exist(sessions):
    publish(sessions, GATEWAY, cluster("gateway"))
    publish(sessions, SIDECAR, cluster("sidecar"))
    sidecar = await Client(sessions, SIDECAR).ask(DeltaRequest(CLUSTER, subscribe=("gateway",)))
    assert await sidecar.receive() == ([], ["gateway"])


async def test_a_scope_that_nothing_was_published_for_is_empty_until_something_is(sessions):
    publish(sessions, GATEWAY, cluster("gateway"))
    client = await Client(sessions, ANOTHER).ask()
    assert await client.receive() == ([], [])
    publish(sessions, ANOTHER, cluster("late"))
    assert await client.receive() == (["late"], [])


async def test_what_is_published_at_once_arrives_together(sessions):
    """A client that connected before anything was published is not told that its scope is empty."""
    client = Client(sessions, SIDECAR)
    asking = asyncio.create_task(client.ask())
    await asyncio.sleep(0)
    publish(sessions, GATEWAY, cluster("gateway"))
    publish(sessions, SIDECAR, cluster("sidecar"))
    await asking
    assert await client.receive() == (["sidecar"], [])


async def test_a_long_request_is_answered_though_something_else_is_published_between_its_parts(sessions):
    publish(sessions, GATEWAY, cluster("a"))
    client = Client(sessions, GATEWAY)
    asking = asyncio.create_task(client.ask(DeltaRequest(CLUSTER, subscribe=("*", *map(str, range(6000))))))
    await asyncio.sleep(0)
    sessions.publish(Snapshot.of([cluster("a"), endpoints("a")]), [endpoints("a").key])
    await asking
    there, _ = await client.receive()
    assert there == ["a"]


async def test_a_short_request_is_answered_between_the_parts_of_a_long_one_and_of_the_same_stream_behind_them(sessions):
    """What is published to the client that said much comes behind its answer, too."""
    publish(sessions, GATEWAY, cluster("a"))
    client, other = await Client(sessions, GATEWAY).ask(), Client(sessions, GATEWAY)
    await client.receive()
    many = tuple(map(str, range(10 * MANY)))
    asking = asyncio.create_task(client.ask(DeltaRequest(CLUSTER, subscribe=many)))
    async with time_limit(PATIENCE):
        while not client.stream.turn.locked():  # noqa: ASYNC110 - the condition is what another task does
            await asyncio.sleep(0)
    behind = asyncio.create_task(client.ask(DeltaRequest(ENDPOINT, subscribe=("b",))))
    sessions.publish(Snapshot.of([cluster("a", "2"), endpoints("b")]), [cluster("a").key, endpoints("b").key])
    await other.ask()
    assert not asking.done()
    assert not behind.done()
    await asking
    there, gone = await client.receive()
    assert (there, sorted(gone)) == ([], sorted(many))
    assert not (await other.receive())[1]
    await behind
    heard = [client.stream.outbox.get_nowait() for _ in range(client.stream.outbox.qsize())]
    assert {one.key.name for answer in heard for one in answer.resources} == {"a", "b"}


async def test_a_wait_that_ends_while_the_session_has_something_in_parts_is_looked_at_behind_it():
    """A route waits for the ACK of its cluster, and goes without it in the end."""
    async with running(replace(REAL.streams, make_before_break=0.01)) as sessions:
        publish(sessions, GATEWAY, cluster("a"), route("r", "a"))
        client = await Client(sessions, GATEWAY).ask()
        await client.stream.outbox.get()
        await client.ask(DeltaRequest(ROUTE, subscribe=("r",)))
        assert client.hears_nothing
        loop, due = asyncio.get_running_loop(), client.stream.timer.when()
        async with client.stream.turn, time_limit(PATIENCE):
            while loop.time() <= due + 0.01:  # noqa: ASYNC110 - until its timer has fired
                await asyncio.sleep(0)
        async with time_limit(PATIENCE):
            there = await client.stream.outbox.get()
        assert [one.key.name for one in there.resources] == ["r"]


async def test_a_stream_that_is_closed_is_not_gone_on_with(sessions):
    publish(sessions, GATEWAY, cluster("a"))
    client = await Client(sessions, GATEWAY).ask()
    async with sessions.admission.turn_of_long():
        asking = asyncio.create_task(client.ask(DeltaRequest(CLUSTER, subscribe=tuple(map(str, range(10 * MANY))))))
        await asyncio.sleep(0)
        sessions.close(client.stream)
    await asking
    assert not client.stream.session.holds(cluster("a").key, cluster("a").version)
    assert client.stream.outbox.qsize() == 1


@pytest.mark.parametrize(
    ("asked", "error"), [(("*",), "c7 is wrong"), (tuple(map(str, range(6000))), None)], ids=["refusal", "ack"]
)
async def test_an_answer_to_much_has_a_turn_and_a_short_request_overtakes_it(sessions, asked, error):
    publish(sessions, GATEWAY, *(cluster(f"c{number}") for number in range(300)))
    client, other = Client(sessions, GATEWAY), Client(sessions, GATEWAY)
    await client.ask(DeltaRequest(CLUSTER, subscribe=asked))
    response = await client.stream.outbox.get()
    async with sessions.admission.turn_of_long():
        answering = asyncio.create_task(client.ask(DeltaRequest(CLUSTER, nonce=response.nonce, error=error)))
        await asyncio.sleep(0)
        await other.ask()
        assert not answering.done()
    await answering
    assert [one.key.name for one in client.stream.session.rejections] == (["c7"] if error else [])


async def test_changes_of_one_scope_are_gathered(sessions):
    publish(sessions, SIDECAR, cluster("a"))
    client = await Client(sessions, SIDECAR).ask()
    await client.receive()
    publish(sessions, SIDECAR, cluster("a", "2"))
    publish(sessions, GATEWAY, cluster("c"))
    sessions.publish(Snapshot.of([cluster("a", "2"), cluster("b")]), [cluster("b").key], SIDECAR)
    assert await client.receive() == (["a", "b"], [])


async def test_only_clients_of_the_scope_are_asked_what_they_hold(sessions):
    publish(sessions, GATEWAY, cluster("a"))
    publish(sessions, SIDECAR, cluster("b"))
    for scope in (GATEWAY, SIDECAR):
        await (await Client(sessions, scope).ask()).receive()
    (gateway,) = sessions.streams.holds([(cluster("a").key, cluster("a").version)])
    (sidecar,) = sessions.streams.holds([(cluster("b").key, cluster("b").version)], SIDECAR)
    assert (gateway.client.scope, gateway.complete) == (GATEWAY, True)
    assert (sidecar.client.scope, sidecar.complete) == (SIDECAR, True)
    assert sessions.streams.holds([], ANOTHER) == ()


async def test_what_clients_have_is_known_at_once_of_those_that_have_everything(sessions):
    publish(sessions, GATEWAY, cluster("a"))
    one, other = await Client(sessions, GATEWAY, "one").ask(), await Client(sessions, GATEWAY, "other").ask()
    await one.receive()
    progress, wanted = sessions.progress(), [(cluster("a").key, cluster("a").version)]
    assert [client.node_id for client in progress.clients] == ["one", "other"]
    assert [client.node_id for client, _ in progress.others] == ["other"]
    assert [client.node_id for client in progress.lacking(wanted)] == ["other"]
    await other.receive()
    assert sessions.progress().others == ()
    newer = [(cluster("a").key, cluster("a", "2").version)]
    assert [client.node_id for client in sessions.progress().lacking(newer)] == ["one", "other"]
    publish(sessions, GATEWAY, cluster("a", "2"))
    assert [client.node_id for client in sessions.progress().lacking(newer)] == ["one", "other"]
    await one.receive()
    assert [client.node_id for client in sessions.progress().lacking(newer)] == ["other"]


async def test_who_carries_traffic_is_known_until_its_last_stream_is_over(sessions):
    publish(sessions, GATEWAY, cluster("a"))
    first, second = await Client(sessions, GATEWAY).ask(), await Client(sessions, GATEWAY).ask()
    await Client(sessions, GATEWAY, "debug/me").ask()
    await Client(sessions, SIDECAR, "sidecar").ask()
    assert set(sessions.streams.carrying()) == {"envoy"}
    sessions.close(first.stream)
    assert set(sessions.streams.carrying()) == {"envoy"}
    sessions.close(second.stream)
    assert set(sessions.streams.carrying()) == set()


async def test_others_have_their_turn_between_two_requests(sessions):
    """A server that answers a thousand requests before it looks up lets nobody connect meanwhile: so many are ten."""
    publish(sessions, GATEWAY, cluster("a"))
    asking = asyncio.gather(*(Client(sessions, GATEWAY, f"envoy-{number}").ask() for number in range(100)))
    turns = 0
    while not asking.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 5  # with twenty: as many where they are read, and as many of those that wait


async def test_a_request_is_answered_where_it_was_read_and_overtakes_none_that_waits(sessions):
    publish(sessions, GATEWAY, cluster("a"))
    first = await Client(sessions, GATEWAY).ask()
    ack = DeltaRequest(CLUSTER, nonce=first.stream.outbox.get_nowait().nonce)
    await asyncio.sleep(0)  # until the round is over in which it asked
    with pytest.raises(StopIteration):
        sessions.handle(first.stream, ack).send(None)

    publish(sessions, GATEWAY, cluster("b"))
    second = await Client(sessions, GATEWAY).ask()
    assert await second.receive() == (["b"], [])


async def told_in_each_turn(clients):
    """Return who hears something, a list for each turn of the event loop in which anybody did, until all have."""
    turns, left = [], [*clients]
    async with time_limit(PATIENCE):
        while left:
            await asyncio.sleep(0)
            told = [one for one in left if not one.hears_nothing]
            left = [one for one in left if one.hears_nothing]
            turns += [told] if told else []
    return turns


async def test_strangers_are_told_one_in_each_turn_of_the_loop_after_all_others(sessions):
    publish(sessions, GATEWAY, cluster("a"))
    strangers = [Client(sessions, GATEWAY, f"debug/{number}", STRANGER) for number in range(10)]
    members = [Client(sessions, GATEWAY) for _ in range(2)]
    for one in (*strangers, *members):
        await (await one.ask()).receive()
    publish(sessions, GATEWAY, cluster("a", "2"))
    assert await told_in_each_turn([*strangers, *members]) == [members, *([one] for one in strangers)]


async def test_what_is_published_while_a_stranger_waits_comes_at_once_in_its_turn(sessions):
    publish(sessions, GATEWAY, cluster("a"), cluster("b"))
    stranger, gone = (Client(sessions, GATEWAY, "debug/me", STRANGER) for _ in range(2))
    member = Client(sessions, GATEWAY)
    for one in (stranger, gone, member):
        await (await one.ask()).receive()
    async with sessions.admission.turn_of_strangers():
        publish(sessions, GATEWAY, cluster("a", "2"), cluster("b"))
        assert await member.receive() == (["a"], [])
        sessions.publish(Snapshot.of([cluster("a", "2")]), [cluster("b").key])
        assert await member.receive() == ([], ["b"])
        assert stranger.hears_nothing
        sessions.close(gone.stream)
    assert await stranger.receive() == (["a"], ["b"])
    assert stranger.hears_nothing
    assert gone.hears_nothing


async def test_others_have_their_turn_while_many_are_told_much(sessions):
    """Fifty clients were one step, whatever each of them cost."""
    resources = [cluster(f"c{number}") for number in range(1000)]
    publish(sessions, GATEWAY, *resources)
    clients = [Client(sessions, GATEWAY) for _ in range(60)]
    for one in clients:
        await one.ask(SotwRequest(CLUSTER))
        response = one.stream.outbox.get_nowait()
        await one.ask(SotwRequest(CLUSTER, version=response.version, nonce=response.nonce))
    publish(sessions, GATEWAY, *resources, cluster("new"))
    assert max(map(len, await told_in_each_turn(clients))) < 50


@pytest.mark.parametrize("node_id", ["", "debug/me"])
async def test_a_reader_that_says_nothing_else_reads_what_the_gateway_has(sessions, node_id):
    publish(sessions, GATEWAY, cluster("gateway"))
    publish(sessions, SIDECAR, cluster("sidecar"))
    reader = await Client(sessions, Node(node_id).scope, node_id).ask()
    assert await reader.receive() == (["gateway"], [])


async def test_a_fetch_is_answered_with_what_is_of_its_scope(sessions):
    with pytest.raises(NotReadyError):
        await sessions.fetch(Node(), SotwRequest(CLUSTER), STRANGER)
    publish(sessions, GATEWAY, cluster("gateway"), Resource.of(SECRET, "s", b"hush"))
    publish(sessions, SIDECAR, cluster("sidecar"))
    await asyncio.sleep(0)
    for scope, name in ((GATEWAY, "gateway"), (SIDECAR, "sidecar")):
        response = await sessions.fetch(Node(scope=scope), SotwRequest(CLUSTER), STRANGER)
        assert [one.key.name for one in response.resources] == [name]
    assert (await sessions.fetch(Node(), SotwRequest(SECRET), STRANGER)).resources == ()
    assert len((await sessions.fetch(Node(), SotwRequest(SECRET), MEMBER)).resources) == 1


async def test_a_client_that_leaves_before_the_first_snapshot_leaves_nothing_behind(sessions):
    """While the API server is away that may be long, and clients may come as often as they like."""

    async def came_and_left():
        stream = sessions.streams.open("test", None)
        sessions.streams.introduce(stream, Node("envoy"), MEMBER)
        asked = asyncio.create_task(sessions.handle(stream, EVERYTHING))
        for _ in range(10):  # Turns of the loop, in the first of which it begins.
            await asyncio.sleep(0)
        assert not asked.done()
        sessions.close(stream)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)

    for _ in range(5):
        await came_and_left()
    gc.collect()
    # The task still knows the event that it handled last.
    assert len([one for one in gc.get_objects() if isinstance(one, ClientStream)]) <= 1


@pytest.mark.parametrize("script", [DeltaScript, SotwScript])
def test_what_a_client_has_is_free_when_it_leaves_and_not_when_python_looks_for_garbage(script):
    """With all that it may name that is several megabytes, and a client may come as often as it likes."""
    gc.disable()
    try:
        client = script(*model("a"))
        (response,) = client.ask(CLUSTER, "*", "nothing")
        client.ack(response)
        client.ask(ROUTE, "a")
        left = weakref.ref(client.session)
        del client
        assert left() is None
    finally:
        gc.enable()


async def test_an_error_that_nobody_reads_keeps_nothing_of_what_the_client_said(sessions):
    publish(sessions, GATEWAY, cluster("a"))
    client = await Client(sessions, GATEWAY).ask(DeltaRequest(CLUSTER, subscribe=tuple(map(str, range(20_001)))))
    end = client.stream.outbox.get_nowait()
    assert isinstance(end.error, TooManyNamesError)
    assert end.error.__traceback__ is None


def test_a_client_that_refuses_the_same_again_and_again_fills_no_log(caplog):
    """It may ask for it as often as it likes."""
    telemetry = ClientTelemetry(lambda _: None, CollectorRegistry())
    stream = ClientStream(1, "test", None, datetime.now(UTC), node=Node("envoy"), trusted=True)
    refused = Output(rejected=(Rejection(ResourceKey(CLUSTER, "a"), "1", "no", 0.0),))
    for number in range(10_000):
        telemetry.stepped(stream, refused, 1000.0 + number / 1000)
    assert [one.message for one in caplog.records[:101]] == ["xds client rejected a resource"] * 100 + [
        "xds client has more troubles than are logged"
    ]
    assert len(caplog.records) < 100 + 2 * 12
    telemetry.stepped(stream, refused, 2000.0)
    assert caplog.records[-1].message == "xds client rejected a resource"


def test_of_many_refusals_that_come_at_once_a_few_are_logged_and_how_many_more_there_are(caplog):
    """Each line has the text, which the client has once for all of them."""
    telemetry = ClientTelemetry(lambda _: None, CollectorRegistry())
    stream = ClientStream(1, "test", None, datetime.now(UTC), node=Node("envoy"), trusted=True)
    keys = [ResourceKey(CLUSTER, str(number)) for number in range(1000)]
    telemetry.stepped(stream, Output(rejected=tuple(Rejection(key, "1", "no", 0.0) for key in keys)), 0.0)
    assert [one.message for one in caplog.records] == [
        *["xds client rejected a resource"] * LINES_AT_ONCE,
        "xds client has more of the same troubles",
    ]
    assert caplog.records[-1].more == 1000 - LINES_AT_ONCE


async def test_of_those_that_came_before_the_first_snapshot_a_few_are_answered_at_once(sessions):
    clients = [Client(sessions, GATEWAY, f"envoy-{number}") for number in range(50)]
    asking = [asyncio.create_task(one.ask()) for one in clients]
    async with time_limit(PATIENCE):
        for _ in range(5 * len(clients)):
            await asyncio.sleep(0)  # until they wait
        publish(sessions, GATEWAY, cluster("a"))
        answered, most = 0, 0
        while answered < len(clients):
            await asyncio.sleep(0)
            before, answered = answered, sum(not one.hears_nothing for one in clients)
            most = max(most, answered - before)
    assert most <= 10
    await asyncio.gather(*asking)
