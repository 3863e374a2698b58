"""What several replicas of the xDS server say together of a remote backend."""

from datetime import UTC, datetime

import pytest

from controller.api.contract.health import RemoteHealth, unknown
from controller.api.contract.reports import Count, LoadReport, RemoteReport, RouteReport
from controller.api.schema.values import parse
from controller.observe.proxies import Fleet, ProxyFacts, ServerFacts
from controller.store.objects import ObjectRef
from tests.support.routes import a_remote, a_route

REMOTE = a_remote()
SINCE = datetime(2026, 1, 1, tzinfo=UTC)
UNCHECKED = unknown("no xDS server checks it: checks are turned off")


def said(healthy=None, words="", *, remote=REMOTE):
    reason, since = ("", None) if healthy is None else ("Answering" if healthy else "NotConnected", SINCE)
    found = RemoteReport(backend=remote.digest, healthy=healthy, reason=reason, message=words, since=since)
    return RouteReport(namespace="default", name="a", route=a_route(remote).digest, remotes=(found,))


def by_requests(healthy, words):
    report = said(healthy, words)
    (found,) = report.remotes
    return report.model_copy(update={"remotes": (found.model_copy(update={"by_requests": True}),)})


def known(healthy, words):
    reason = "Answering" if healthy else "NotConnected"
    return RemoteHealth(healthy=healthy, message=words, reason=reason, since=SINCE)


OLDER = RouteReport(namespace="default", name="a", route="x")
MISSING = RouteReport(
    namespace="default",
    name="a",
    route="x",
    remotes=(RemoteReport(backend=REMOTE.digest, reason="SecretNotFound", message="Secret default/x does not exist"),),
)
UNUSABLE = RemoteHealth(reason="SecretNotFound", message="Secret default/x does not exist")
UP, DOWN, UNDECIDED = said(True, "up"), said(False, "down"), said()
ANSWERED, FAILED = by_requests(True, "answered"), by_requests(False, "failed")
OF_ANOTHER = said(False, "down", remote=a_remote("another.example"))


@pytest.mark.parametrize(
    ("reports", "expected"),
    [
        ([UP], known(True, "up")),
        ([DOWN], known(False, "down")),
        ([DOWN, UP, UNDECIDED, None], known(True, "up")),
        ([DOWN, said(False, "also down")], known(False, "down")),
        ([UNDECIDED], None),
        ([DOWN, UNDECIDED], None),
        ([DOWN, OF_ANOTHER], None),
        ([DOWN, None], None),
        ([None], None),
        ([OLDER], UNCHECKED),
        ([OLDER, DOWN], known(False, "down")),
        ([], UNCHECKED),
        ([MISSING], UNUSABLE),
        ([MISSING, OLDER], UNUSABLE),
        ([MISSING, UNDECIDED], None),
        ([MISSING, UP], known(True, "up")),
        ([UP, FAILED], known(False, "failed")),
        ([FAILED, UNDECIDED], known(False, "failed")),
        ([FAILED, DOWN], known(False, "failed")),
        ([DOWN, FAILED, MISSING], known(False, "failed")),
        ([FAILED, ANSWERED], known(True, "answered")),
        ([DOWN, ANSWERED], known(True, "answered")),
        ([UP, ANSWERED], known(True, "answered")),
    ],
)
def test_requests_are_right_then_who_finds_it_healthy_and_nothing_is_said_while_somebody_may(reports, expected):
    facts = ProxyFacts(tuple(ServerFacts(report, envoys=1) for report in reports))
    assert facts.health_of(REMOTE) == expected


def test_what_was_missing_may_be_used_as_soon_as_some_replica_has_it():
    assert not ProxyFacts((ServerFacts(MISSING, envoys=1), ServerFacts(None, envoys=1))).may_use(REMOTE)
    assert ProxyFacts((ServerFacts(MISSING, envoys=1), ServerFacts(UNDECIDED, envoys=1))).may_use(REMOTE)
    assert not ProxyFacts((ServerFacts(OF_ANOTHER, envoys=1),)).may_use(REMOTE)


def test_a_fleet_says_nothing_before_every_replica_was_heard():
    model, fleet = ObjectRef("ModelDeployment", "default", "a"), Fleet()
    assert fleet.facts(model) is None
    fleet.expect("one")
    fleet.expect("two")
    fleet.complete("one", frozenset((fleet.add_report("one", DOWN),)))
    assert fleet.facts(model) is None
    fleet.complete("two", frozenset((fleet.add_report("two", UP),)))
    assert fleet.facts(model).health_of(REMOTE) == known(True, "up")
    fleet.drop("two")
    assert fleet.facts(model).health_of(REMOTE) == known(False, "down")


def test_another_split_is_not_another_backend():
    assert a_route(REMOTE, away=30).remote.digest == a_route(REMOTE).remote.digest
    assert REMOTE.digest != a_remote(path_prefix="/x").digest


def test_a_report_is_read_as_it_was_written():
    again = RouteReport.model_validate_json(DOWN.model_dump_json(by_alias=True))
    assert again == DOWN


def test_a_report_of_load_names_models_without_a_kind_in_versions_before():
    given = {
        "node": "e",
        "began": 1,
        "seconds": 1,
        "age": 0,
        "counts": {"ns/a/local": [1, 1, 0, 0], "model/ns/b/remote": None},
    }
    assert parse(LoadReport, given).counts == {"model/ns/a/local": Count(1, 1), "model/ns/b/remote": None}
