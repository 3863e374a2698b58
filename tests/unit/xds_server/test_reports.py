"""What one replica says of its models, and to whom."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from controller.api.contract.reports import RemoteReport, ServerReport
from controller.api.contract.route import RouteKey
from tests.support.loads import hears, serves, to_local
from tests.support.routes import a_remote, a_route, a_route_with
from tests.support.waiting import PATIENCE, time_limit
from xds_server.loads.loads import Loads
from xds_server.reports import Reports
from xds_server.routes.credentials import ServingProblem
from xds_server.routes.shadow_mode import ShadowedProblem
from xds_server.routes.translation import NOT_TRANSLATED
from xds_server.snapshot.snapshot import CLUSTER, EMPTY, SECRET, Resource, ResourceKey, Snapshot
from xds_server.stream.load_reporting.wire import LoadStream
from xds_server.stream.protocol.messages import Rejection
from xds_server.stream.server.clients import ClientState, Progress

A, B = RouteKey.of_model("default", "a"), RouteKey.of_model("default", "b")
KEY = ResourceKey(CLUSTER, "model/default/a/local")
NO = Rejection(key=KEY, version="1", message="no", at=0.0)
ENVOY = ClientState(
    stream=1,
    protocol="delta",
    peer="",
    node_id="gateway-1",
    cluster="",
    user_agent="envoy",
    user_agent_version="",
    connected_at=datetime(2026, 1, 1, tzinfo=UTC),
    is_debug=False,
    authorised=True,
    trusted=True,
    initialised=True,
)


class Published:
    def __init__(self, **routes):
        self.by_key = {RouteKey.of_model("default", name): route for name, route in routes.items()}
        self.said = {}
        self.brought = ((KEY, "1"),)

    def routes(self):
        return tuple(self.by_key)

    def route(self, model):
        return self.by_key.get(model)

    def versions(self, model):
        return self.brought

    def problems(self, model):
        return self.said.get(model, ())


class Has:
    """The session of a client that has everything, or nothing; and what it refuses."""

    def __init__(self, everything, rejections=()):
        self.everything = everything
        self.refused = {one.key: one for one in rejections}
        self.asked = 0

    def rejection(self, key):
        return self.refused.get(key)

    def holds(self, key, version):
        self.asked += 1
        return self.everything


class Clients:
    def __init__(self, *clients):
        self.every = clients
        self.snapshot = EMPTY

    def refused(self):
        return ""

    def progress(self):
        return Progress(self.snapshot, self.every, tuple(one for one in self.every if not one[1].everything))


def holding(complete=True, **changes):
    return replace(ENVOY, **changes), Has(complete, changes.get("rejections", ()))


def report_with(*holdings):
    return Reports(Published(a=a_route()), Clients(*holdings)).report(A)


def test_who_acknowledged_all_of_it_is_programmed():
    report = report_with(holding(), holding(complete=False))
    assert (report.connected, report.programmed, report.route) == (2, 1, a_route().digest)


def test_a_few_of_those_that_have_not_are_named():
    waiting = [holding(complete=False, node_id=f"gateway-{number}") for number in (9, 3, 7, 5)]
    assert report_with(holding(), *waiting).waiting == ("gateway-3", "gateway-5", "gateway-7")


def test_readers_and_those_that_just_joined_do_not_count():
    report = report_with(holding(is_debug=True), holding(initialised=False))
    assert (report.connected, report.programmed) == (0, 0)


def test_a_refusal_names_the_envoy_and_the_resource():
    refusal = Rejection(key=KEY, version="1", message=" unknown field \n", at=0.0)
    report = report_with(holding(complete=False, rejections=(refusal,)))
    assert report.refusals == ("gateway-1 refuses CDS model/default/a/local: unknown field",)


def refusing(number, message="no"):
    rejections = (replace(NO, message=message),)
    return holding(complete=False, node_id=f"gateway-{number:02}", rejections=rejections)


def test_of_many_refusals_ten_are_told_and_how_many_there_are():
    report = report_with(*map(refusing, range(100)))
    assert [words.partition(" ")[0] for words in report.refusals[:-1]] == [
        f"gateway-{number:02}" for number in range(10)
    ]
    assert report.refusals[-1] == "10 of 100 refusals are told"


def test_of_long_refusals_as_much_is_told_as_a_condition_has_room_for():
    short, *long = (refusing(number, "no" * length) for number, length in enumerate((1, 1_000, 1_000, 1_000)))
    first, second, third, more = report_with(short, *long).refusals
    assert first.endswith(": no")
    assert second.endswith("no" * 1_000)
    assert third.endswith("no...")
    assert more == "3 of 4 refusals are told"
    assert sum(map(len, (first, second, third))) == 3_000 + len("...")


def test_of_many_envoys_that_are_given_no_secrets_a_few_are_named():
    published = Published(a=a_route())
    published.brought = ((ResourceKey(SECRET, "secret/a"), "1"),)
    envoys = [holding(complete=False, authorised=False, node_id=f"gateway-{number}") for number in range(100)]
    refusals = Reports(published, Clients(*envoys)).report(A).refusals
    assert [words.partition(" ")[0] for words in refusals[:-1]] == ["gateway-0", "gateway-1", "gateway-2"]
    assert refusals[-1] == "3 of 100 such Envoys are named"


def test_what_could_not_be_resolved_is_said():
    published = Published(a=a_route())
    published.said[A] = (ServingProblem(NOT_TRANSLATED, "it cannot be"),)
    report = Reports(published, Clients()).report(A)
    assert (report.refusals, report.remotes) == (("it cannot be",), ())


def test_what_cannot_be_used_is_reported_of_every_remote_backend_whatever_a_check_finds():
    first, second = (a_remote(name=name) for name in ("remote", "remote-b"))
    published = Published(a=a_route_with(first, second))
    published.said[A] = (ServingProblem("SecretNotFound", "Secret default/x does not exist"),)
    report = Reports(published, Clients(), None, Remotes()).report(A)
    assert report.refusals == ()
    assert [(one.backend, one.name, one.healthy, one.usable) for one in report.remotes] == [
        (one.digest, one.name, None, False) for one in (first, second)
    ]
    assert {(one.reason, one.message) for one in report.remotes} == {
        ("SecretNotFound", "Secret default/x does not exist")
    }


def test_what_a_remote_backend_in_shadow_would_lack_is_reported_of_it_and_of_nothing_that_is_served():
    remote, published = a_remote(), Published(a=a_route())
    published.said[A] = (ShadowedProblem("SecretNotFound", "Secret default/x does not exist", remote),)
    report = Reports(published, Clients(), None, Remotes()).report(A)
    lacking = RemoteReport(backend=remote.digest, reason="SecretNotFound", message="Secret default/x does not exist")
    assert (report.refusals, report.remotes) == ((), (lacking,))


def test_an_envoy_that_is_given_no_secrets_is_named_where_one_is_needed():
    published = Published(a=a_route())
    reports = Reports(published, Clients(holding(), holding(complete=False, authorised=False, node_id="stranger")))
    assert reports.report(A).refusals == ()
    published.brought = ((ResourceKey(SECRET, "secret/a"), "1"),)
    (words,) = reports.report(A).refusals
    assert words.startswith("stranger is given no secrets")


def test_what_strangers_say_of_themselves_is_in_no_report():
    lie = Rejection(key=KEY, version="1", message="buy now", at=0.0)
    stranger = holding(complete=False, authorised=False, trusted=False, node_id="pay here", rejections=(lie,))
    reports = Reports(Published(a=a_route()), Clients(holding(), stranger))
    report = reports.report(A)
    assert (report.connected, report.programmed, report.refusals) == (1, 1, ())
    assert reports.replica(0.0) == ServerReport(envoys=1, silent=("gateway-1",), known_as=("gateway-1",))


async def test_a_reader_is_told_everything_first_and_then_what_changed():
    published, clients = Published(a=a_route(), b=a_route()), Clients(holding())
    reports = Reports(published, clients)
    reader = reports.follow()
    assert [one.name for one in await anext(reader)] == ["a", "b"]
    published.said[B] = (ServingProblem(NOT_TRANSLATED, "wrong"),)
    reports.look_again(None)
    assert [one.name for one in await anext(reader)] == ["b"]


async def test_a_report_is_made_once_for_all_who_read_it():
    envoy = holding(complete=False)
    reports = Reports(Published(a=a_route(), b=a_route()), Clients(envoy))
    first, second = reports.follow(), reports.follow()
    assert await anext(first) == await anext(second)
    assert envoy[1].asked == 2
    reports.look_again([A])
    third = reports.follow()
    assert [one.name for one in await anext(third)] == ["a", "b"]
    assert envoy[1].asked == 3


def test_an_envoy_that_has_everything_is_not_asked_about_each_route():
    done, behind = holding(), holding(complete=False)
    clients, published = Clients(done, behind), Published(a=a_route())
    resource = Resource.of(*KEY, b"")
    clients.snapshot, published.brought = Snapshot.of([resource]), ((KEY, resource.version),)
    reports = Reports(published, clients)
    assert (reports.report(A).connected, reports.report(A).programmed) == (2, 1)
    assert done[1].asked == 0
    published.brought = ((KEY, "what is not served yet"),)
    done[1].everything = False
    assert reports.report(A).programmed == 0


@pytest.mark.parametrize(
    ("routes", "envoys", "rejections", "steps"), [(100, 1000, (), 20), (1000, 0, (), 4), (1000, 100, (NO,), 200)]
)
async def test_others_have_their_turn_while_many_envoys_are_asked_about_many_routes(routes, envoys, rejections, steps):
    published = Published(**dict.fromkeys((f"m{number}" for number in range(routes)), a_route()))
    clients = Clients(*(holding(complete=False, rejections=rejections) for _ in range(envoys)))
    reader = Reports(published, clients).follow()
    reading, turns = asyncio.ensure_future(anext(reader)), 0
    while not reading.done():
        turns += 1
        await asyncio.sleep(0)
    assert len(reading.result()) == routes
    assert turns > steps


async def test_who_stops_waiting_in_the_middle_loses_nothing():
    published = Published(**{f"m{number:02}": a_route() for number in range(20)})
    reader = Reports(published, Clients(*(holding(complete=False) for _ in range(5000)))).follow()
    reading = asyncio.ensure_future(anext(reader))
    for _ in range(8):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    assert len(await anext(reader)) == 20


async def test_who_waits_less_than_the_rest_between_two_looks_each_time_is_told_all_the_same():
    published = Published(a=a_route())
    reports = Reports(published, Clients())
    reader = reports.follow()
    await anext(reader)
    published.said[A] = (ServingProblem(NOT_TRANSLATED, "wrong"),)
    reports.look_again([A])
    told = ()
    async with time_limit(PATIENCE):
        while not told:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(reports.timing.gathering / 10):
                    told = await anext(reader)
    assert told[0].refusals == ("wrong",)


async def test_a_reader_of_nothing_is_told_so():
    assert await anext(Reports(Published(), Clients()).follow()) == ()


async def test_a_model_that_is_no_longer_served_is_told_without_a_route():
    published = Published(a=a_route())
    reports = Reports(published, Clients())
    reader = reports.follow()
    await anext(reader)
    del published.by_key[A]
    reports.look_again([A])
    (told,) = await anext(reader)
    assert (told.name, told.route) == ("a", "")


async def test_many_changes_are_told_at_once_and_a_cancelled_read_loses_nothing():
    published = Published(a=a_route())
    reports = Reports(published, Clients())
    reader = reports.follow()
    await anext(reader)
    for words in ("first", "last"):
        published.said[A] = (ServingProblem(NOT_TRANSLATED, words),)
        reports.look_again([A])
        read = asyncio.create_task(anext(reader))
        await asyncio.sleep(0)
        read.cancel()
        await asyncio.gather(read, return_exceptions=True)
    (told,) = await anext(reader)
    assert told.refusals == ("last",)


async def test_a_reader_is_woken_by_a_load_that_is_new_and_by_no_other():
    loads, stream = Loads(), LoadStream("one", 1.0)
    serves(loads, A)
    reports = Reports(Published(a=a_route()), Clients(), loads)
    reader, another = reports.follow(), reports.follow()
    for one in (reader, another):
        await anext(one)
    hears(loads, stream, (to_local(A, sent=1, now=1),), 1.0)
    assert await anext(reader) == await anext(another) == ()
    waiting = asyncio.ensure_future(anext(reader))
    hears(loads, stream, (to_local(A, now=1),), 2.0)  # as many are in flight as before
    # By the same clock a reader that is woken gathers for a third as long.
    await asyncio.wait({waiting}, timeout=3 * reports.timing.gathering)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not waiting.done()
    hears(loads, stream, (to_local(A, ok=1),), 3.0)
    assert await waiting == ()


def test_which_envoys_report_no_load_is_said_of_the_replica():
    loads = Loads()
    reports = Reports(
        Published(a=a_route()), Clients(holding(), holding(node_id="other"), holding(is_debug=True)), loads
    )
    assert reports.replica(1.0) == ServerReport(
        envoys=2, silent=("gateway-1", "other"), known_as=("gateway-1", "other")
    )
    hears(loads, LoadStream("gateway-1", 1.0), (), 1.0)
    assert reports.replica(1.0) == ServerReport(envoys=2, silent=("other",), known_as=("gateway-1", "other"))


def test_the_envoys_of_a_replica_are_known_by_their_node_ids_and_addresses():
    clients = [holding(peer=peer, node_id=f"gateway-{number}") for number, peer in enumerate(PEERS)]
    report = Reports(Published(), Clients(*clients, holding(is_debug=True, peer="ipv4:10.9.0.9:1"))).replica(0.0)
    assert report.known_as == (
        "10.9.0.1",
        "10.9.0.2",
        "fd00::1",
        *(f"gateway-{number}" for number in range(len(PEERS))),
    )
    many = Reports(Published(), Clients(*(holding(node_id=f"gateway-{number}") for number in range(501))))
    assert (many.replica(0.0).envoys, many.replica(0.0).known_as) == (501, None)


# As gRPC writes them.
PEERS = ("ipv4:10.9.0.1:4711", "ipv6:%5Bfd00::1%5D:4711", "ipv6:[::ffff:10.9.0.2]:4711", "unix:/run/xds.sock", "")


def test_each_remote_backend_that_is_checked_has_a_report_of_its_own():
    first, second, unchecked = (a_remote(name=name) for name in ("remote", "remote-b", "remote-c"))
    reports = Reports(Published(a=a_route_with(first, second, unchecked)), Clients(), None, Remotes())
    assert reports.report(A).remotes == tuple(
        RemoteReport(backend=one.digest, name=one.name, healthy=True) for one in (first, second)
    )


class Remotes:
    """The health of all remote backends but one."""

    def report(self, key, remote):
        is_checked = remote.name != "remote-c"
        return RemoteReport(backend=remote.digest, name=remote.name, healthy=True) if is_checked else None
