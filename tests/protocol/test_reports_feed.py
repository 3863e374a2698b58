"""The controller follows what every replica of the xDS server says, over HTTP."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from aiohttp import web

from controller.api.contract.reports import PATH, RouteReport, ServerReport
from controller.api.contract.route import Route, RouteKey
from controller.api.timing import REAL, ReportTiming
from controller.decision import Known, Unknown
from controller.gateway.bootstrap import HostPort
from controller.gateway.client_tls import ClientTls
from controller.observe.feed import Feed, Replicas, ReportsTls
from controller.observe.proxies import Fleet, Programmed
from controller.programs.reports import report_routes, reports_over_tls
from controller.signals.load_reports import Load, Rate
from controller.store.objects import ObjectRef
from tests.support.loads import to_local
from tests.support.network import unused_port
from tests.support.routes import A, a_route
from tests.support.tls import Certificates
from tests.support.waiting import PATIENCE, eventually, time_limit, until
from xds_server.loads.loads import Loads
from xds_server.reports import Reports
from xds_server.routes.credentials import ServingProblem
from xds_server.routes.translation import NOT_TRANSLATED
from xds_server.snapshot.snapshot import EMPTY, ResourceKey
from xds_server.stream.load_reporting.wire import ClusterLoad, LoadStream, ReportedLoads
from xds_server.stream.protocol.parts import at_once
from xds_server.stream.server.clients import Progress

FORGETS_SOON, FORGETS_LATE = ReportTiming(forget_after=0.5), ReportTiming(forget_after=PATIENCE)
BELIEVES_LONG = ReportTiming(forget_after=0.5, old_after=PATIENCE)
"""What is said once is believed until a busy machine has looked at it."""
NOWHERE = "the Service has no endpoint"
MODEL = ObjectRef(*A)
ROUTE = a_route()
REPORT = RouteReport(namespace=A.namespace, name=A.name, route=ROUTE.digest, connected=1, programmed=1)
ONE_MODEL, END = REPORT.model_dump_json(by_alias=True), ServerReport(envoys=1).model_dump_json(by_alias=True)


def reported(fleet: Fleet) -> Programmed | None:
    """What all replicas together report of the model and its route."""
    facts = fleet.facts(MODEL)
    return facts and facts.programmed(ROUTE)


class Served:
    """A replica that serves some models, to no Envoy."""

    def __init__(self) -> None:
        self.by_key: dict[RouteKey, Route] = {A: ROUTE}
        self.wrong: tuple[str, ...] = ()

    def routes(self) -> Iterable[RouteKey]:
        return tuple(self.by_key)

    def route(self, key: RouteKey) -> Route | None:
        return self.by_key.get(key)

    def versions(self, key: RouteKey) -> Iterable[tuple[ResourceKey, str]]:
        return ()

    def problems(self, key: RouteKey) -> tuple[ServingProblem, ...]:
        return tuple(ServingProblem(NOT_TRANSLATED, words) for words in self.wrong)

    def progress(self) -> Progress:
        return Progress(EMPTY, (), ())

    def refused(self) -> str:
        return ""


class Replica:
    """One replica on a port of its own, which can go away and come back."""

    def __init__(self, timing: ReportTiming = REAL.reports) -> None:
        self.timing = timing
        self.served = Served()
        self.loads = Loads()
        self.reports = Reports(self.served, self.served, self.loads)
        self.loads.set_route(A, ROUTE, ())
        self.port = unused_port()
        self._runner: web.AppRunner | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        app = web.Application()
        app.add_routes(report_routes(self.reports, self.timing))
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port).start()

    async def stop(self) -> None:
        if self._runner:
            await self._runner.cleanup()

    def say(self, *words: str) -> None:
        self.served.wrong = words
        self.reports.look_again([A])


class Saying:
    """Something on a port of its own that says these lines to each who asks, and holds on at None until it may go."""

    def __init__(self, *lines: str | None) -> None:
        self.lines = lines
        self.may_go = asyncio.Event()
        self.port = unused_port()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Saying]:
        app = web.Application()
        app.add_routes([web.get(PATH, self._answer)])
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        try:
            await web.TCPSite(runner, "127.0.0.1", self.port).start()
            yield self
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in self.lines:
            if line is None:
                await self.may_go.wait()
            else:
                await response.write(f"{line}\n".encode())
        return response


class Following:
    """A fleet that is kept current, and what its observer was told."""

    def __init__(self, timing: ReportTiming) -> None:
        self.fleet = Fleet(timing)
        self.replicas: asyncio.Queue[Replicas] = asyncio.Queue()
        self.told: list[frozenset[ObjectRef] | None] = []
        self.loads_told = 0
        self.feed = Feed(self.fleet, self, timing)

    # As its observer.

    def look_again(self, models: frozenset[ObjectRef] | None) -> None:
        self.told.append(models)

    def look_at_loads(self) -> None:
        self.loads_told += 1

    async def silence(self) -> str:
        return self.fleet.silence

    def refusals(self) -> tuple[str, ...] | None:
        report = reported(self.fleet)
        return None if report is None else report.refusals


@asynccontextmanager
async def following(
    *replicas: Replica | Saying, timing: ReportTiming = FORGETS_SOON, tls: ClientTls | None = None, at: str = ""
) -> AsyncIterator[Following]:
    this = Following(timing)
    this.replicas.put_nowait(dict.fromkeys((at,) if at else (replica.address for replica in replicas), True))
    proof = ReportsTls(tls.context, tls.server_name) if tls else None
    this.feed = Feed(this.fleet, this, timing, NOWHERE, proof)
    task = asyncio.create_task(this.feed.run(this.replicas))
    try:
        yield this
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


@asynccontextmanager
async def over_tls(replica: Replica, certificates: Certificates) -> AsyncIterator[str]:
    """The reports of a replica, for those whose certificate is a controller's; yields where they are."""
    address, routes = HostPort("127.0.0.1", unused_port()), report_routes(replica.reports)
    async with reports_over_tls(address, certificates.server(), routes, shutdown=0.1):
        yield str(address)


@pytest.fixture
async def replica() -> AsyncIterator[Replica]:
    replica = Replica()
    await replica.start()
    yield replica
    await replica.stop()


@pytest.fixture
async def another() -> AsyncIterator[Replica]:
    replica = Replica()
    await replica.start()
    yield replica
    await replica.stop()


async def test_everything_is_heard_first_and_then_every_change(replica: Replica) -> None:
    async with following(replica) as this:
        await until(lambda: this.refusals() == (), "the model is heard of")
        replica.say("wrong")
        await until(lambda: this.refusals() == ("wrong",), "the word is heard")
        assert this.told[-1] == {MODEL}


async def test_a_replica_that_has_nothing_to_say_counts(replica: Replica) -> None:
    replica.served.by_key.clear()
    async with following(replica) as this:
        await until(lambda: reported(this.fleet) is not None, "the model is heard of")


async def test_two_replicas_are_heard_together(replica: Replica, another: Replica) -> None:
    replica.say("one")
    another.say("two")
    async with following(replica, another) as this:
        await until(lambda: this.refusals() and set(this.refusals() or ()) == {"one", "two"}, "both are heard")


async def test_a_replica_that_came_back_is_heard_again(replica: Replica) -> None:
    async with following(replica, timing=FORGETS_LATE) as this:
        await until(lambda: this.refusals() == (), "the model is heard of")
        await replica.stop()
        replica.served.wrong = ("after",)
        replica.reports.look_again(None)
        await replica.start()
        await until(lambda: this.refusals() == ("after",), "what it says afterwards is heard")


async def test_the_last_word_of_a_replica_that_went_away_counts_for_a_while_only(replica: Replica) -> None:
    async with following(replica) as this:
        await until(lambda: this.refusals() == (), "the model is heard of")
        clock = asyncio.get_running_loop().time
        stopping = clock()
        await replica.stop()
        await until(lambda: this.refusals() is None, "the model is forgotten")
        assert clock() - stopping >= 0.5
        assert this.told[-1] is None


async def test_a_replica_that_is_no_longer_named_does_not_count(replica: Replica, another: Replica) -> None:
    replica.say("one")
    async with following(replica, another) as this:
        await until(lambda: len(this.fleet.replicas) == 2, "both are heard")
        this.replicas.put_nowait({another.address: True})
        await until(lambda: this.fleet.replicas == {another.address}, "one is left")
        assert this.refusals() == ()


async def test_how_many_replicas_there_are_is_what_was_named_whether_it_is_reached_or_not(replica: Replica) -> None:
    assert Following(FORGETS_SOON).feed.replicas is None
    async with following(replica) as this:
        await until(lambda: this.refusals() == (), "the model is heard of")
        assert this.feed.replicas == 1
        this.replicas.put_nowait({replica.address: True, f"127.0.0.1:{unused_port()}": True})
        await until(lambda: this.feed.replicas == 2, "there is one more")


async def test_a_replica_that_is_not_there_yet_is_heard_when_it_comes() -> None:
    late = Replica()
    async with following(late, timing=FORGETS_LATE) as this:
        await late.start()
        try:
            await until(lambda: this.refusals() == (), "the model is heard of")
        finally:
            await late.stop()


async def test_a_first_list_that_takes_long_counts_whole_when_it_ends() -> None:
    async with Saying(ONE_MODEL, None, END).running() as slow, following(slow) as this:
        this.fleet.complete("another", frozenset())
        await until(lambda: this.told, "it was given up")
        slow.may_go.set()
        await until(lambda: slow.address in this.fleet.replicas, "its list counts")
        report = reported(this.fleet)
        assert report and report.programmed == 1


async def test_who_cannot_be_reached_is_named_with_the_reason_until_it_is() -> None:
    late = Replica()
    async with following(late, timing=FORGETS_LATE) as this:
        why = f"the xDS server {late.address} cannot be reached: Connection refused"
        await until(lambda: this.fleet.silence == why, "it is named")
        assert this.told
        await late.start()
        try:
            await until(lambda: this.refusals() == (), "the model is heard of")
            assert this.fleet.silence == ""
        finally:
            await late.stop()


async def test_a_controller_reads_the_reports_by_its_certificate_and_by_the_name_of_the_service(
    replica: Replica, tmp_path: Path
) -> None:
    certificates = Certificates.make(tmp_path)
    tls = certificates.client("controller", "beamlit-xds.beamlit-system.svc")
    async with over_tls(replica, certificates) as address, following(tls=tls, at=address) as this:
        await until(lambda: reported(this.fleet), "it is heard")
        replica.say("something is wrong")
        await until(lambda: this.refusals() == ("something is wrong",), "a change is heard")


@pytest.mark.parametrize(
    ("name", "server_name", "why"),
    [
        ("gateway", "localhost", "cannot be reached: 403 Forbidden: the client is no controller"),
        ("reader", "localhost", "cannot be reached: 403 Forbidden: the client is no controller"),
        ("controller", "xds.example", "its certificate: Hostname mismatch"),
        ("of-another-authority", "localhost", "it may refuse the certificate of --xds-cert"),
        ("over", "localhost", "it may refuse the certificate of --xds-cert"),
        ("for-servers", "localhost", "it may refuse the certificate of --xds-cert"),
    ],
)
async def test_nobody_else_reads_them_and_the_controller_reads_of_nobody_else(
    replica: Replica, tmp_path: Path, name: str, server_name: str, why: str
) -> None:
    certificates = Certificates.make(tmp_path / "ours")
    Certificates.make(tmp_path / "theirs")
    (tmp_path / "theirs" / "controller").rename(tmp_path / "ours" / "of-another-authority")
    ca = (tmp_path / "ours" / "controller" / "ca.crt").read_bytes()
    (tmp_path / "ours" / "of-another-authority" / "ca.crt").write_bytes(ca)
    certificates.signed_by_openssl("over", "URI:spiffe://beamlit/controller", days="over")
    certificates.signed_by_openssl("for-servers", "URI:spiffe://beamlit/controller", usage="serverAuth")
    tls = certificates.client(name, server_name)
    async with over_tls(replica, certificates) as address, following(tls=tls, at=address) as this:
        # The first try may take too long, which is told as well.
        await eventually(this.silence, lambda said: why in said)
        assert not reported(this.fleet)


async def test_reports_go_on_while_certificates_are_renewed_and_the_next_stream_has_the_new_ones(
    replica: Replica, tmp_path: Path
) -> None:
    certificates = Certificates.make(tmp_path)
    tls = certificates.client("controller")
    async with over_tls(replica, certificates) as address:
        async with following(tls=tls, at=address) as this:
            await until(lambda: reported(this.fleet), "it is heard")
            shutil.copytree(tmp_path / "controller", tmp_path / "before")
            shutil.rmtree(tmp_path / "ca")
            certificates.renew()
            replica.say("something is wrong")
            await until(lambda: this.refusals() == ("something is wrong",), "the stream is the same")
        async with following(tls=tls, at=address) as this:
            await until(lambda: reported(this.fleet), "the new certificate is known")
        (tmp_path / "before" / "ca.crt").write_bytes((tmp_path / "controller" / "ca.crt").read_bytes())
        async with following(tls=certificates.client("before"), at=address) as this:
            assert await eventually(this.silence, lambda said: said), "that of an authority that is gone is not known"


async def test_a_certificate_that_cannot_be_read_is_a_trouble_and_no_crash(replica: Replica, tmp_path: Path) -> None:
    certificates = Certificates.make(tmp_path)
    tls = certificates.client("controller")
    key = tls.key.read_bytes()
    tls.key.unlink()
    async with over_tls(replica, certificates) as address, following(tls=tls, at=address) as this:
        await until(lambda: "No such file" in this.fleet.silence, "it says why")
        tls.key.write_bytes(key)
        await until(lambda: reported(this.fleet), "it is heard once the file is there")


async def test_a_service_without_an_endpoint_is_named(replica: Replica) -> None:
    async with following() as this:
        await until(lambda: this.fleet.silence == NOWHERE, "it is named")
        this.replicas.put_nowait({replica.address: True})
        await until(lambda: this.refusals() == (), "the model is heard of")
        assert this.fleet.silence == ""


async def test_a_reader_that_stops_is_no_error(replica: Replica, caplog: pytest.LogCaptureFixture) -> None:
    before = len(asyncio.all_tasks())
    reader, writer = await asyncio.open_connection("127.0.0.1", int(replica.address.rpartition(":")[2]))
    writer.write(f"GET {PATH} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
    await reader.readuntil(ONE_MODEL[:20].encode())
    writer.transport.abort()
    words = itertools.count()

    def has_ended() -> bool:
        replica.say(f"word {next(words)}")
        return len(asyncio.all_tasks()) <= before

    await until(has_ended, "nobody answers it any more")
    assert [one for one in caplog.records if one.levelname in ("WARNING", "ERROR")] == []


@pytest.mark.parametrize("nonsense", ["null", "[1]", "{", '{"name": 1}'])
async def test_who_says_what_is_no_report_does_not_count(nonsense: str) -> None:
    async with Saying(nonsense, END).running() as strange, following(strange) as this:
        await until(lambda: this.told, "it was given up")
        assert not this.fleet.replicas


async def test_who_went_away_after_nonsense_is_forgotten_too() -> None:
    strange = Saying(ONE_MODEL, END, "nonsense")
    async with strange.running(), following(strange) as this:
        await until(lambda: this.fleet.replicas, "it is heard")
        strange.lines = ()
        await until(lambda: not this.fleet.replicas, "it is gone")


async def load_of(this: Following, condition: Callable[[Load], bool]) -> Load:
    """The load of the model, once it is as expected."""
    async with time_limit(PATIENCE):
        while True:
            load = this.fleet.loads.load(MODEL, datetime.now(UTC))
            if isinstance(load, Known) and condition(load.value):
                return load.value
            await asyncio.sleep(0.02)


async def unknown(this: Following, why: str) -> None:
    """Wait until the load of the model is not known for this."""

    async def load() -> Known[Load] | Unknown:
        return this.fleet.loads.load(MODEL, datetime.now(UTC))

    await eventually(load, lambda load: isinstance(load, Unknown) and load.why == why)


def hears(replica: Replica, stream: LoadStream, *clusters: ClusterLoad) -> None:
    now = asyncio.get_running_loop().time()
    at_once(replica.loads.report_received(stream, ReportedLoads.of(clusters), now))


async def test_loads_are_followed_and_change_no_report(replica: Replica) -> None:
    async with following(replica) as this:
        await unknown(this, "no Envoy reports load")
        hears(replica, LoadStream("one", 1.0), to_local(A, sent=4, now=1))
        load = await load_of(this, lambda load: load.in_flight == 1)
        assert load.local == Rate(4.0, 0.0)
        hears(replica, LoadStream("one", 1.0), to_local(A, ok=1))
        await load_of(this, lambda load: load.in_flight == 0)
        assert this.told in ([], [None]), "a load is no news of the model"
        # Nothing more is heard, while the replica goes on talking.
        await unknown(this, "no Envoy reports load")


async def test_an_envoy_that_changes_the_replica_is_neither_lost_nor_doubled(
    replica: Replica, another: Replica
) -> None:
    async with following(replica, another, timing=BELIEVES_LONG) as this:
        hears(replica, LoadStream("one", 1.0), to_local(A, sent=10, ok=6, now=4))
        await load_of(this, lambda load: load.in_flight == 4)
        hears(another, LoadStream("one", 2.0), to_local(A, sent=20, ok=21, now=3))
        load = await load_of(this, lambda load: load.in_flight == 3)
        assert load.local == Rate(15.0, 0.0)


async def test_what_is_in_flight_lacks_a_part_while_an_xds_server_is_not_reached_and_until_it_is_gone_for_good(
    replica: Replica, another: Replica
) -> None:
    async with following(replica, another, timing=ReportTiming(forget_after=0.1, awaited=0.5)) as this:

        async def looks(is_seen: Callable[[Load], bool]) -> None:
            """One Envoy goes on reporting; wherever it is all that is heard, it is said whether that is all."""
            async with time_limit(PATIENCE):
                while True:
                    hears(replica, LoadStream("one", 1.0), to_local(A, now=3))
                    load = this.fleet.loads.load(MODEL, datetime.now(UTC))
                    if isinstance(load, Known):
                        seen.append(load.value)
                        if is_seen(load.value):
                            return
                    await asyncio.sleep(0.02)

        seen: list[Load] = []
        hears(another, LoadStream("two", 2.0), to_local(A, now=4))
        await looks(lambda load: load.in_flight == 7)
        await another.stop()
        words = f"the xDS server {another.address} is not reached"
        await looks(lambda load: load.missing is not None and load.missing.why == words and not load.missing.pending)
        assert all(one.missing or one.in_flight == 7 for one in seen)
        this.replicas.put_nowait({replica.address: True})
        await looks(lambda load: load.missing is None and load.in_flight == 3)


async def test_who_begins_to_follow_late_is_told_what_is_in_flight(replica: Replica) -> None:
    for _ in range(20):
        hears(replica, LoadStream("one", 1.0), to_local(A, sent=1, ok=1, now=7))
    async with following(replica, timing=BELIEVES_LONG) as this:
        load = await load_of(this, lambda load: load.in_flight == 7)
        assert isinstance(load.local, Unknown)


QUIET = ReportTiming(reported_every=10 * PATIENCE, alive_within=10 * PATIENCE, old_after=PATIENCE)
"""A replica says nothing by itself, and what it says is believed for long."""


@pytest.fixture
async def quiet() -> AsyncIterator[Replica]:
    replica = Replica(QUIET)
    await replica.start()
    yield replica
    await replica.stop()


async def test_a_load_is_told_when_it_is_heard(quiet: Replica) -> None:
    async with following(quiet, timing=QUIET) as this:
        await until(lambda: this.refusals() == (), "the model is heard of")
        for sent in (1, 2, 3):
            hears(quiet, LoadStream("one", 1.0), to_local(A, sent=sent, ok=sent, now=sent))
            await load_of(this, lambda load, sent=sent: load.in_flight == sent)
            assert this.loads_told == sent


async def test_who_the_envoys_are_is_not_told_with_each_load(quiet: Replica) -> None:
    client = httpx.AsyncClient(timeout=4 * PATIENCE)
    async with client, client.stream("GET", f"http://{quiet.address}{PATH}") as response:
        lines = response.aiter_lines()
        assert ["name" in await anext(lines), "envoys" in await anext(lines)] == [True, True]
        for number in range(3):
            hears(quiet, LoadStream("one", 1.0), to_local(A, sent=number, ok=number, now=number % 2))
            assert "node" in await anext(lines)
