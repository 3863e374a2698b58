"""What several replicas of the xDS server say together."""

from controller.api.contract.reports import RouteReport, ServerReport
from controller.api.contract.route import Route
from controller.api.timing import REAL
from controller.observe.proxies import Fleet, Programmed
from controller.store.objects import ObjectRef
from tests.support.routes import a_route

MODEL = ObjectRef("ModelDeployment", "default", "a")
ROUTE = a_route()
OLDER = ROUTE.model_copy(update={"port": 81})


def said(route: Route | None = ROUTE, connected: int = 0, programmed: int = 0, *refusals: str) -> RouteReport:
    return RouteReport(
        namespace="default",
        name="a",
        route=route.digest if route else "",
        connected=connected,
        programmed=programmed,
        refusals=refusals,
    )


def report_of(fleet: Fleet, route: Route = ROUTE) -> Programmed | None:
    facts = fleet.facts(MODEL)
    return facts and facts.programmed(route)


def heard(**replicas: RouteReport) -> Fleet:
    fleet = Fleet()
    for replica, report in replicas.items():
        fleet.expect(replica)
        fleet.complete(replica, frozenset((fleet.add_report(replica, report),)))
    return fleet


def test_nobody_was_heard():
    assert report_of(Fleet()) is None


def test_a_replica_in_the_middle_of_its_first_list_does_not_count():
    fleet = Fleet()
    fleet.expect("one")
    fleet.add_report("one", said(ROUTE, 1, 1))
    assert report_of(fleet) is None


def test_while_a_replica_is_awaited_nothing_is_said():
    fleet = heard(one=said(ROUTE, 1, 1))
    fleet.expect("two")
    assert report_of(fleet) is None
    fleet.drop("two")
    assert report_of(fleet).programmed == 1


def test_envoys_of_all_replicas_add_up():
    report = report_of(heard(one=said(ROUTE, 2, 1), two=said(ROUTE, 3, 3)))
    assert (report.connected, report.programmed) == (5, 4)


def test_an_older_route_is_not_this_one():
    report = report_of(heard(one=said(ROUTE, 1, 1), two=said(OLDER, 1, 1, "refused")))
    assert (report.connected, report.programmed, report.refusals) == (2, 1, ())


def test_the_same_refusal_of_two_replicas_is_said_once():
    report = report_of(heard(one=said(ROUTE, 1, 0, "no secret"), two=said(ROUTE, 1, 0, "no secret")))
    assert report.refusals == ("no secret",)


def test_a_replica_without_envoys_is_a_report_all_the_same():
    report = report_of(heard(one=said(ROUTE)))
    assert (report.connected, report.programmed) == (0, 0)


def test_a_replica_that_is_gone_does_not_count():
    fleet = heard(one=said(ROUTE, 1, 1), two=said(ROUTE, 1, 0))
    fleet.drop("two")
    assert report_of(fleet).connected == 1
    fleet.drop("one")
    assert report_of(fleet) is None


def test_a_replica_that_began_anew_without_a_model_no_longer_has_it():
    fleet = heard(one=said(ROUTE, 1, 1))
    fleet.complete("one", frozenset())
    assert report_of(fleet).connected == 0


def test_a_model_that_is_no_longer_served_is_forgotten():
    fleet = heard(one=said(ROUTE, 1, 1))
    fleet.add_report("one", said(None))
    assert report_of(fleet).connected == 0


def test_a_replica_that_was_not_told_of_a_model_yet_will_serve_it_to_all_its_envoys():
    fleet = heard(one=said(None))
    fleet.add_replica_report("one", ServerReport(envoys=2), 0)
    report = report_of(fleet)
    assert (report.connected, report.programmed) == (2, 0)


def test_envoys_that_change_from_one_replica_to_another_take_nothing_back():
    fleet = heard(one=said(ROUTE, 1, 1), two=said(ROUTE))
    assert fleet.add_replica_report("one", ServerReport(envoys=1), 100)
    fleet.drop("one")
    assert report_of(fleet) is None
    assert not fleet.add_replica_report("two", ServerReport(envoys=0), 102)
    assert report_of(fleet) is None
    fleet.add_report("two", said(ROUTE, 1, 1))
    assert report_of(fleet).programmed == 1


def test_envoys_that_go_and_do_not_come_back_are_gone():
    fleet = heard(one=said(ROUTE, 1, 1))
    fleet.add_replica_report("one", ServerReport(envoys=1), 100)
    fleet.add_report("one", said(ROUTE))
    assert not fleet.add_replica_report("one", ServerReport(envoys=0), 102)
    assert report_of(fleet) is None
    assert fleet.add_replica_report("one", ServerReport(envoys=0), 100 + REAL.reports.envoys_away)
    assert report_of(fleet).connected == 0
    assert fleet.add_replica_report("one", ServerReport(envoys=1), 120)


def test_that_envoys_are_others_is_news_though_they_are_as_many():
    fleet = heard(one=said(ROUTE, 1, 1), two=said(ROUTE))
    fleet.add_replica_report("one", ServerReport(envoys=1, known_as=("10.9.0.1", "gateway-a")), 100)
    # Another version, or one that has too many, does not say whom it has: then nobody is known.
    assert fleet.facts(MODEL).known_as == frozenset()
    fleet.add_replica_report("two", ServerReport(envoys=0, known_as=()), 100)
    assert fleet.facts(MODEL).known_as == {"10.9.0.1", "gateway-a"}
    assert not fleet.add_replica_report("one", ServerReport(envoys=1, known_as=("10.9.0.1", "gateway-a")), 101)
    assert fleet.add_replica_report("one", ServerReport(envoys=1, known_as=("10.9.0.2", "gateway-b")), 102)
    assert fleet.facts(MODEL).known_as == {"10.9.0.2", "gateway-b"}


def test_who_comes_and_does_not_count_is_told_where_no_envoy_is_and_counts_as_news():
    fleet, why = heard(one=said(ROUTE)), "the client at 10.0.0.7 is no Envoy of ours: why"
    fleet.add_replica_report("one", ServerReport(envoys=0), 100)
    assert fleet.add_replica_report("one", ServerReport(envoys=0, refused=why), 101)
    assert not fleet.add_replica_report("one", ServerReport(envoys=0, refused=why), 102)
    assert report_of(fleet).refused == why
    fleet.add_report("one", said(ROUTE, 1, 1))
    assert report_of(fleet).refused == ""
    assert fleet.add_replica_report("one", ServerReport(envoys=1), 103)


def test_the_ports_of_programs_are_those_of_every_replica_there_ever_was():
    fleet = heard(one=said(ROUTE))
    assert fleet.add_replica_report("one", ServerReport(envoys=1, ports=(17000,)), 100)
    assert not fleet.add_replica_report("one", ServerReport(envoys=1, ports=(17000,)), 101)
    assert fleet.add_replica_report("two", ServerReport(envoys=0, ports=(17000, 18000)), 102)
    fleet.drop("two")
    assert fleet.ports == {17000, 18000}


def test_a_server_that_names_all_ports_takes_none_from_models():
    fleet = heard(one=said(ROUTE))
    fleet.add_replica_report("one", ServerReport(envoys=1, ports=tuple(range(10000, 30000))), 100)
    assert fleet.ports == frozenset()
    for port in range(10000, 30000, 100):
        fleet.add_replica_report("one", ServerReport(envoys=1, ports=(port,)), 101)
    assert len(fleet.ports) < 100


def test_who_is_waited_for_is_named():
    pending = said(ROUTE, 2, 0).model_copy(update={"waiting": ("gateway-2", "gateway-1")})
    report = report_of(heard(one=pending, two=said(OLDER, 1, 1), three=said(ROUTE, 1, 1)))
    assert report.waiting == ("the xDS server two", "gateway-1", "gateway-2")


def test_why_nothing_is_heard_is_said_once_and_taken_back():
    fleet = Fleet()
    assert fleet.silence == ""
    assert fleet.set_trouble("two", "two is away")
    assert not fleet.set_trouble("two", "two is away")
    assert fleet.set_trouble("one", "one is away")
    assert fleet.silence == "one is away; two is away"
    assert fleet.set_trouble("one", "")
    assert not fleet.set_trouble("one", "")
    assert fleet.silence == "two is away"
