"""Which backends are checked, when, and who is told: against real sockets, without waiting for an interval to pass."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from prometheus_client import CollectorRegistry
from pydantic import SecretStr

from controller.api.contract.credentials import CredentialSource
from controller.api.contract.route import HttpCheck, RouteKey
from controller.api.timing import CheckTiming
from tests.support.checked_servers import PATIENT, Names, Talker, answer, connector_by
from tests.support.loads import hears, load
from tests.support.routes import A, B, a_remote, a_route, with_token
from tests.support.waiting import PATIENCE, at_rest, until
from xds_server.health.checks import CheckInputs, CheckMetrics, HealthChecks
from xds_server.health.judgement import NO_TRAFFIC
from xds_server.loads.loads import Answers, Loads
from xds_server.resources.backend_names import backend_name
from xds_server.snapshot.snapshot import CLUSTER, ResourceKey
from xds_server.stream.load_reporting.wire import LoadStream

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HUSH = "hush-hush"
CHECK = HttpCheck(path="/healthz", interval=timedelta(seconds=5))
LOOPBACK = Names(remote__example="127.0.0.1")


class Running:
    """Checks that run, and the routes that they found something new of, each time with how many checks had failed."""

    def __init__(self, connector, traffic):
        self.registry, self.changes, self.errors_by_then = CollectorRegistry(), [], []
        inputs = CheckInputs(connector, lambda: NOW, random.random, traffic)
        self.checks = HealthChecks(inputs, CheckMetrics(self.registry), self.changed)

    def changed(self, routes):
        self.changes.append(routes)
        self.errors_by_then.append(self.errors)

    def serve(self, model, *remotes, values=None):
        self.checks.set_remotes(model, [(remote, values or {}) for remote in remotes])

    def withdraw(self, model):
        self.checks.set_remotes(model, ())

    async def found(self, model, remote, reason, within=PATIENCE):
        """Wait until the backend of a model is judged so; its report."""

        async def is_so():
            report = self.checks.report(model, remote)
            return report is not None and report.reason == reason

        await until(is_so, f"{reason}, not {self.checks.report(model, remote)}", within)
        return self.checks.report(model, remote)

    def metric(self, name, **labels):
        return self.registry.get_sample_value(name, labels)

    @property
    def errors(self):
        """How many checks ended with a wrong status."""
        return self.metric("beamlit_remote_checks_total", reason="ErrorAnswer")

    @property
    def count(self):
        """How many checks there were."""
        return int(self.metric("beamlit_remote_check_duration_seconds_count"))


@contextlib.asynccontextmanager
async def running(connector=None, traffic=NO_TRAFFIC):
    one = Running(connector or connector_by(LOOPBACK), traffic)
    task = asyncio.create_task(one.checks.run())
    await asyncio.sleep(0)
    try:
        yield one
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def over(port, **more):
    return a_remote(port=port, health_check=CHECK, **more)


async def test_a_new_backend_is_checked_at_once_and_every_model_of_it_is_told():
    talker = Talker(answer(503))
    async with talker.listening() as port, running() as one:
        first, second = over(port), over(port, path_prefix="/b")
        one.serve(A, first)
        one.serve(B, second)
        assert one.checks.report(A, first).healthy is None
        report = await one.found(A, first, "ErrorAnswer")
        assert (report.healthy, report.backend, report.since) == (False, first.digest, NOW)
        assert report.message == "seen from the xDS server: GET /healthz answers 503"
        assert one.checks.report(B, second).backend == second.digest
        assert (one.changes[-1], talker.connections, one.count) == (frozenset((A, B)), 1, 1)
        assert one.metric("beamlit_remote_checks_total", reason="ErrorAnswer") == 1


async def test_each_remote_backend_of_a_route_is_checked_and_reported_for_itself():
    connector = connector_by(Names(remote__example="127.0.0.1", other__example="127.0.0.2"))
    good, bad = Talker(answer(200)), Talker(answer(503))
    async with good.listening() as port, bad.listening("127.0.0.2") as other, running(connector) as one:
        first, second = over(port), a_remote("other.example", port=other, health_check=CHECK, name="remote-b")
        one.serve(A, first, second)
        await one.found(A, first, "Answering")
        report = await one.found(A, second, "ErrorAnswer")
        assert (report.name, report.backend) == ("remote-b", second.digest)
        one.serve(A, second)
        assert one.checks.report(A, first) is None
        assert one.checks.report(A, second).reason == "ErrorAnswer"


async def test_what_was_there_before_it_runs_is_checked_too():
    async with Talker(answer(200)).listening() as port:
        one = Running(connector_by(LOOPBACK), NO_TRAFFIC)
        one.serve(A, over(port))
        task = asyncio.create_task(one.checks.run())
        await one.found(A, over(port), "Answering")
        task.cancel()


async def test_a_change_that_is_none_of_the_backends_is_no_reason_for_a_check():
    async with Talker(answer(200)).listening() as port, running() as one:
        one.serve(A, over(port))
        await one.found(A, over(port), "Answering")
        one.serve(A, over(port))
        one.serve(A, over(port, path_prefix="/new"))
        # One that is a reason, after these: it is looked at in their order.
        another = a_remote(port=port, health_check=CHECK.model_copy(update={"path": "/another"}))
        one.serve(B, another)
        await one.found(B, another, "Answering")
        assert one.count == 2


async def test_a_changed_secret_is_a_reason_for_a_check_and_until_then_nothing_is_taken_back():
    source = CredentialSource.of_secret("s", "clientSecret")
    body = '{"access_token": "t", "expires_in": 3600}'
    tokens = Talker(answer(200, body))
    async with Talker(answer(200)).listening() as port, tokens.listening() as endpoint, running() as one:
        url = f"http://remote.example:{endpoint}/token"
        remote = over(port, auth=with_token(source, url))
        one.serve(A, remote, values={source: SecretStr("older")})
        await one.found(A, remote, "Answering")
        tokens.words = answer(401, '{"error": "invalid_client"}')
        one.serve(A, remote, values={source: SecretStr(HUSH)})
        assert one.checks.report(A, remote).healthy
        report = await one.found(A, remote, "TokenNotIssued")
        assert report.message.endswith("no token is issued: remote.example answers 401 (invalid_client)")
        tokens.words = answer(200, body)
        one.serve(A, remote, values={source: SecretStr("newest")})
        await one.found(A, remote, "Answering")
        assert len(tokens.heard) == 3


async def test_what_requests_with_an_older_credential_met_says_nothing_of_a_backend_with_a_newer_one():
    """Envoys report later what failed before, and what they reported of the last ten seconds is looked at again."""
    source, loads = CredentialSource.of_secret("s", "clientSecret"), Loads()
    tokens = Talker(answer(200, '{"access_token": "t", "expires_in": 3600}'))
    async with Talker(answer(200)).listening() as port, tokens.listening() as endpoint, running(traffic=loads) as one:
        remote = over(port, auth=with_token(source, f"http://remote.example:{endpoint}/token"))
        cluster = backend_name(A, remote)
        loads.set_route(A, a_route(remote), [ResourceKey(CLUSTER, cluster)])

        def requests_fail():
            hears(loads, LoadStream("envoy", 1.0), [load(cluster, sent=9, bad=9)], asyncio.get_running_loop().time())

        requests_fail()
        one.serve(A, remote, values={source: SecretStr("older")})
        await one.found(A, remote, "ErrorAnswers")
        one.serve(A, remote, values={source: SecretStr("newer")})
        requests_fail()
        report = await one.found(A, remote, "Answering")
        assert (report.healthy, report.by_requests, one.count) == (True, False, 2)


async def test_another_backend_of_the_same_model_is_another_matter():
    connector = connector_by(Names(remote__example="127.0.0.1", other__example="127.0.0.2"))
    good, bad = Talker(answer(200)), Talker(answer(503))
    async with good.listening() as port, bad.listening("127.0.0.2") as other, running(connector) as one:
        one.serve(A, over(port))
        await one.found(A, over(port), "Answering")
        remote = a_remote("other.example", port=other, health_check=CHECK)
        one.serve(A, remote)
        assert one.checks.report(A, remote).healthy is None
        await one.found(A, remote, "ErrorAnswer")


async def test_what_nobody_uses_is_not_checked_and_not_told_of():
    async with Talker(answer(200)).listening() as port, running() as one:
        remote = over(port)
        one.serve(A, remote)
        one.serve(B, remote)
        await one.found(A, remote, "Answering")
        (backend,) = {
            sample.labels["backend"]
            for metric in one.registry.collect()
            for sample in metric.samples
            if sample.name == "beamlit_remote_healthy"
        }
        where = {"backend": backend, "namespace": "default", "host": f"remote.example:{port}"}
        one.withdraw(A)
        assert one.checks.report(A, remote) is None
        assert one.metric("beamlit_remote_healthy", **where) == 1
        one.withdraw(B)
        assert one.metric("beamlit_remote_healthy", **where) is None
        tasks = len(asyncio.all_tasks())
        await until(lambda: len(asyncio.all_tasks()) < tasks, "nobody checks it any more")


async def test_one_failure_of_a_healthy_backend_is_looked_at_again_soon_and_told_only_then():
    connector = connector_by(
        Names(remote__example="127.0.0.1", steady__example="127.0.0.2"),
        replace(PATIENT, least_interval=0.1, in_doubt=0.02),
    )
    rarely, often = (HttpCheck(path="/healthz", interval=timedelta(seconds=seconds)) for seconds in (2, 0.1))
    talker, steady = Talker(answer(200)), Talker(answer(200))
    async with talker.listening() as port, steady.listening("127.0.0.2") as other, running(connector) as one:
        remote = a_remote(port=port, health_check=rarely)
        control = a_remote("steady.example", port=other, health_check=often)
        one.serve(A, remote)
        one.serve(B, control)
        await one.found(A, remote, "Answering")
        await one.found(B, control, "Answering")
        one.errors_by_then.clear()
        asked = steady.heard = talker.heard = []
        talker.words = answer(500)
        await one.found(A, remote, "ErrorAnswer", within=60)
    # Who was healthy is told to be not with the second failure.
    assert one.errors_by_then == [2]
    # That came long before its turn, until which the other one would have been asked twenty times.
    whose = ["remote" if b"remote.example" in words else "steady" for words in asked]
    first, second, *_ = (number for number, one in enumerate(whose) if one == "remote")
    assert whose[first:second].count("steady") < 10


class Seen:
    """Real traffic to whatever backend."""

    def __init__(self, counts):
        self.now = counts

    def answers(self, backend, sides, now, began):
        assert backend.startswith("backend/")
        return self.now


async def test_requests_that_are_answered_go_before_a_check_that_sees_another_network():
    async with running(connector_by(Names()), Seen(Answers(3, 0))) as one:
        one.serve(A, over(1))
        report = await one.found(A, over(1), "Answering")
        assert report.message == (
            "requests are answered, though seen from the xDS server: "
            "remote.example cannot be resolved: Name or service not known"
        )


async def test_requests_that_all_fail_go_before_a_check_that_is_fine():
    traffic = Seen(Answers(0, 37))
    async with Talker(answer(200)).listening() as port, running(traffic=traffic) as one:
        one.serve(A, over(port))
        report = await one.found(A, over(port), "ErrorAnswers")
        assert report.message == (
            "none of the last 37 requests was answered: 5xx or no answer; "
            "it is tried again at 2026-01-01T00:00:30Z at the earliest"
        )


class OfNamespaces:
    """Real traffic of each namespace, to whatever backend."""

    def __init__(self, **counts):
        self.now = counts

    def answers(self, backend, sides, now, began):
        (namespace,) = {one.split("/")[1] for one in sides}
        return self.now.get(namespace, Answers(0, 0))


async def test_what_requests_of_one_namespace_meet_says_nothing_of_a_backend_to_another():
    """Whoever can make requests fail would keep it from all who use it."""
    neighbour = RouteKey.of_model("neighbour", "m")
    traffic = OfNamespaces(default=Answers(0, 37))
    connector = connector_by(LOOPBACK, replace(PATIENT, assessed_every=0.02))
    async with Talker(answer(200)).listening() as port, running(connector, traffic) as one:
        remote = over(port)
        one.serve(A, remote)
        one.serve(B, remote)
        one.serve(neighbour, remote)
        await one.found(A, remote, "ErrorAnswers")
        assert one.checks.report(B, remote).reason == "ErrorAnswers", "it is of the same namespace"
        report = one.checks.report(neighbour, remote)
        assert (report.healthy, report.by_requests, report.message) == (
            True,
            False,
            "seen from the xDS server: GET /healthz answers 200",
        )
        assert one.count == 1, "it is checked once for all"
        # Nor is it over for one since requests of another are answered.
        traffic.now["neighbour"] = Answers(5, 0)
        await until(lambda: one.checks.report(neighbour, remote).by_requests, "requests of the other are answered")
        assert one.changes[-1] == {neighbour}
        assert one.checks.report(A, remote).reason == "ErrorAnswers"


async def test_a_namespace_that_comes_later_knows_at_once_what_checks_found_and_leaves_nothing_behind():
    neighbour = RouteKey.of_model("neighbour", "m")
    async with Talker(answer(200)).listening() as port, running(traffic=OfNamespaces(default=Answers(0, 37))) as one:
        remote = over(port)
        one.serve(A, remote)
        await one.found(A, remote, "ErrorAnswers")
        one.serve(neighbour, remote)
        assert one.checks.report(neighbour, remote).healthy
        one.serve(neighbour, remote)
        one.withdraw(neighbour)
        told = {
            sample.labels["namespace"]: sample.value
            for metric in one.registry.collect()
            for sample in metric.samples
            if sample.name == "beamlit_remote_healthy"
        }
        assert told == {"default": 0}


async def test_a_backend_of_many_namespaces_is_judged_for_a_hundred_at_a_time():
    """Others have their turn in between."""
    models = [RouteKey.of_model(f"n{number}", "m") for number in range(250)]
    async with Talker(answer(200)).listening() as port, running() as one:
        remote = over(port)
        for model in models:
            one.serve(model, remote)
        for model in models:
            await one.found(model, remote, "Answering")
        assert [len(routes) for routes in one.changes] == [100, 100, 50]
        assert (one.count, frozenset().union(*one.changes)) == (1, {*models})


class Sending:
    """Requests to a backend, one after the other while it is told to answer, as a split has them sent."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._ended: list[tuple[float, bool]] = []

    def answers(self, backend, sides, now, began):
        lately = [is_answered for at, is_answered in self._ended if now - at < 0.2]
        return Answers(sum(lately), len(lately) - sum(lately))

    async def send(self, checks, remote):
        while True:
            report = checks.report(A, remote)
            if report and report.healthy:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                writer.write(b"GET / HTTP/1.1\r\nHost: remote.example\r\n\r\n")
                status = (await reader.readline()).split()[1]
                self._ended.append((asyncio.get_running_loop().time(), status == b"200"))
                writer.close()
            await asyncio.sleep(0.01)


async def test_a_server_that_accepts_connections_and_answers_503_is_tried_ever_more_rarely(caplog):
    caplog.set_level(logging.INFO, "xds_server.health")
    timing = replace(PATIENT, least_interval=0.1, assessed_every=0.02, ejection=1.0)
    talker = Talker(answer(503))
    async with talker.listening() as port:
        sending, remote = Sending(port), a_remote(port=port)
        async with running(connector_by(LOOPBACK, timing), sending) as one, asyncio.TaskGroup() as group:
            task = group.create_task(sending.send(one.checks, remote))
            one.serve(A, remote)
            await until(lambda: len(caplog.records) >= 6, "it was found to fail three times")
            task.cancel()
            report = one.checks.report(A, remote)
    reasons = [record.reason for record in caplog.records]
    assert reasons == ["Answering", "ErrorAnswers"] * 3
    again = [record.because.partition("; it is tried again at ")[2] for record in caplog.records[1::2]]
    assert again == [f"2026-01-01T00:00:0{seconds}Z at the earliest" for seconds in (1, 2, 3)]
    assert (report.healthy, report.by_requests) == (False, True)
    assert len(talker.heard) >= 15


async def test_many_backends_are_checked_a_few_at_a_time_and_fewer_of_one_namespace():
    talker = Talker(hang=True)
    names = Names(**{f"r{number}__example": "127.0.0.1" for number in range(40)})
    async with talker.listening() as port, running(connector_by(names)) as one:

        def serve(namespace: str, numbers: range) -> None:
            for number in numbers:
                remote = a_remote(f"r{number}.example", port=port, health_check=CHECK)
                one.serve(A._replace(namespace=namespace, name=f"m{number}"), remote)

        async def are_checked(count: int) -> None:
            await until(lambda: talker.connections >= count, f"{count} are checked", within=60)
            assert await at_rest(lambda: talker.connections, 0.1) == count

        serve("a", range(20))
        await are_checked(8)
        serve("b", range(20, 30))
        serve("c", range(30, 40))
        await are_checked(16)


async def test_a_mistake_of_ours_says_nothing_of_the_backend_and_nothing_of_a_secret(caplog):
    class Wrong:
        async def addresses(self, place, namespaces):
            raise TypeError(HUSH)

    async with running(connector_by(Wrong())) as one:
        one.serve(A, over(1))

        async def logged():
            return "remote backend not checked" in caplog.text

        await until(logged, "it is logged")
        assert one.checks.report(A, over(1)).healthy is None
        assert HUSH not in caplog.text


async def test_a_model_that_cannot_be_understood_keeps_nobody_else_from_being_checked(caplog):
    source = CredentialSource.of_secret("s", "clientSecret")
    async with Talker(answer(200)).listening() as port, running() as one:
        strange = over(port, auth=with_token(source, "gopher://h"))
        one.serve(A, strange, values={source: SecretStr(HUSH)})
        one.serve(B, over(port))
        await one.found(B, over(port), "Answering")
        assert one.checks.report(A, strange) is None
    assert "remote backend not checked" in caplog.text
    assert HUSH not in caplog.text


async def test_what_changes_is_logged_with_its_reason(caplog):
    caplog.set_level(logging.INFO, "xds_server.health")
    async with running(connector_by(Names())) as one:
        one.serve(A, over(1))
        await one.found(A, over(1), "NameNotResolved")
    (record,) = caplog.records
    assert (record.message, record.levelname, record.reason) == ("remote backend checked", "WARNING", "NameNotResolved")
    assert record.host == "remote.example:1"


async def test_a_namespace_whose_backends_never_answer_does_not_delay_the_checks_of_another():
    silent, well = Talker(hang=True), Talker(answer(200))
    connector = connector_by(LOOPBACK, CheckTiming(connect=3600, longest=3600))
    async with silent.listening() as nowhere, well.listening() as port, running(connector) as one:
        for number in range(50):
            one.serve(RouteKey.of_model("noisy", f"m{number}"), over(nowhere, name=f"remote-{number}"))
        await until(lambda: silent.connections >= 8, "the checks of the first namespace are under way")
        quiet, remote = RouteKey.of_model("quiet", "m"), over(port)
        one.serve(quiet, remote)
        await one.found(quiet, remote, "Answering")
        assert (one.count, silent.connections) == (1, 8), "no check of the first namespace has ended"


async def test_a_backend_that_waits_behind_others_is_checked_once_a_namespace_uses_it_that_has_its_turn():
    silent, well = Talker(hang=True), Talker(answer(200))
    connector = connector_by(LOOPBACK, CheckTiming(connect=3600, longest=3600))
    async with silent.listening() as nowhere, well.listening() as port, running(connector) as one:
        for number in range(50):
            one.serve(RouteKey.of_model("noisy", f"m{number}"), over(nowhere, name=f"remote-{number}"))
        shared = over(port)
        one.serve(RouteKey.of_model("noisy", "shared"), shared)
        await until(lambda: silent.connections >= 8, "the checks of the first namespace are under way")
        assert well.connections == 0
        one.serve(RouteKey.of_model("quiet", "m"), shared)
        await one.found(RouteKey.of_model("noisy", "shared"), shared, "Answering")
