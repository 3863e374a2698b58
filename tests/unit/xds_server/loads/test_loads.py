"""From what Envoys report to what is known of models."""

from dataclasses import replace

import pytest

from controller.api.contract.credentials import CredentialSource
from controller.api.contract.reports import Count
from controller.api.contract.route import RouteKey
from controller.api.timing import REAL
from tests.support.loads import BACKEND, away, hears, load, serves, to_backend, to_local
from tests.support.routes import A, B, a_remote, a_route, a_route_with, with_token
from xds_server.loads.counts import BackendUsers, StreamCounts
from xds_server.loads.loads import Answers, Loads
from xds_server.resources.backend_names import backend_name
from xds_server.resources.loops import LEADS_HERE
from xds_server.snapshot.snapshot import CLUSTER, ResourceKey
from xds_server.stream.load_reporting.wire import ClusterLoad, LoadStream, LocalityLoad, ReportedLoads
from xds_server.stream.protocol.parts import at_once

NEXT_DOOR = RouteKey.of_model("next", "door")
OF_A = frozenset({"model/default/a/remote"})
FIRST, LATER, OTHER = LoadStream("one", 1.0), LoadStream("one", 2.0), LoadStream("two", 1.5)


def heard(*reports, away=None, credential=False, models=(A,)):
    """Loads after one report a second, from `FIRST` unless a stream goes before it."""
    loads = Loads()
    for model in models:
        serves(loads, model, away=away, credential=credential)
    for now, report in enumerate(reports, 1):
        stream, *clusters = report if isinstance(report[0], LoadStream) else (FIRST, *report)
        hears(loads, stream, tuple(clusters), float(now))
    return loads


def of(loads, name="model/default/a/local"):
    return loads.totals().get(name)


def test_reports_add_up_and_what_is_in_flight_is_the_last():
    loads = heard([to_local(A, sent=5, ok=3, now=2)], [to_local(A, sent=1, ok=2, bad=1)])
    assert of(loads) == Count(6, 5, 1, 0)
    assert loads.in_flight(2.0)["model/default/a/local"] == 0


def test_a_cluster_without_requests_is_reported_and_has_none():
    loads = heard([to_local(A)])
    assert loads.in_flight(1.0) == {"model/default/a/local": 0, "model/default/a/remote": 0}


def test_a_cluster_that_is_not_reported_is_unknown():
    loads = heard([to_local(A)], models=(A, B))
    assert "model/default/b/local" not in loads.in_flight(1.0)
    assert of(loads, "model/default/b/local") is None


def test_what_was_in_flight_and_is_not_mentioned_has_ended():
    loads = heard([to_local(A, sent=1, now=1)], [to_local(A)])
    assert loads.in_flight(2.0)["model/default/a/local"] == 0


def test_a_report_older_than_three_intervals_says_nothing_of_now():
    loads = heard([to_local(A, sent=1, now=1)])
    assert loads.in_flight(1 + REAL.reports.old_after)["model/default/a/local"] == 1
    assert loads.in_flight(1.1 + REAL.reports.old_after) == {}
    assert of(loads) == Count(1, 0, 0, 1), "what was counted stays counted"


def test_while_one_of_two_envoys_says_nothing_the_sum_is_unknown():
    loads = heard([to_local(A, now=1)], [OTHER, to_local(A, now=2)])
    assert loads.in_flight(1.1 + REAL.reports.old_after) == {}
    loads.stream_ended(FIRST, 2.0)
    assert loads.in_flight(1.1 + REAL.reports.old_after)["model/default/a/local"] == 2


def test_two_envoys_add_up():
    loads = heard([to_local(A, sent=1, now=1)], [OTHER, to_local(A, sent=2, now=2)])
    assert (of(loads).issued, loads.in_flight(2.0)["model/default/a/local"]) == (3, 3)


def test_of_two_streams_of_an_envoy_the_newer_says_what_is_in_flight_and_both_count():
    loads = heard([to_local(A, sent=2, now=2)], [LATER, to_local(A, sent=1, ok=2, now=1)])
    assert (of(loads).issued, of(loads).succeeded) == (3, 2)
    assert loads.in_flight(2.0)["model/default/a/local"] == 1


def test_a_stream_that_ended_is_kept_a_while_and_its_counts_for_good():
    loads = heard([to_local(A, sent=1)])
    loads.stream_ended(FIRST, 2.0)
    assert FIRST in loads.streams(2 + REAL.reports.window)
    assert FIRST not in loads.streams(2.1 + REAL.reports.window)
    assert of(loads).issued == 1


def test_of_streams_that_ended_the_last_ones_are_kept_up_to_so_many_counts():
    """Each of them would be kept a while, and who opens them one after the other reports as much in each."""
    loads, streams = Loads(most_of_ended=6), [LoadStream("one", float(number)) for number in range(5)]
    serves(loads, A)
    for stream in streams:
        hears(loads, stream, [to_local(A)], 1.0)
        loads.stream_ended(stream, 1.0)
    assert list(loads.streams(1.0)) == streams[2:]


@pytest.mark.parametrize("name", ["backend/whose", "model/default/a/whose", "model/default/whose/local", "whose/"])
def test_what_nobody_is_called_is_counted_for_nobody(name):
    """Else whoever may report could have any number of names remembered, and shown as metrics."""
    loads = heard([to_local(A), *(load(f"{name}{number}", sent=1, ok=1) for number in range(3))])
    assert [one for one in loads.totals() if "whose" in one] == []
    assert loads.answers(f"{name}0", OF_A, 1.0) == Answers(0, 0)


def test_what_nobody_uses_any_more_is_forgotten_and_counts_again_when_it_is_used():
    loads = heard([to_local(A), to_backend(sent=1, ok=1)], away=50)
    serves(loads, A)
    assert (of(loads, BACKEND), loads.answers(BACKEND, OF_A, 1.0)) == (None, Answers(0, 0))
    hears(loads, FIRST, (to_local(A), to_backend(sent=1, ok=1)), 2.0)
    assert of(loads, BACKEND) is None
    serves(loads, A, away=50)
    hears(loads, FIRST, (to_local(A), to_backend(sent=1, ok=1)), 3.0)
    assert of(loads, BACKEND) == Count(1, 1)


def test_an_envoy_that_says_nothing_is_named():
    loads = heard([to_local(A)])
    assert loads.silent(["one", "two"], 2.0) == ("two",)
    assert loads.silent(["one"], 1.1 + REAL.reports.old_after) == ("one",)


def test_a_model_that_is_gone_is_forgotten_and_its_last_report_too():
    loads = heard([to_local(A, sent=1)])
    loads.remove_route(A)
    hears(loads, FIRST, (to_local(A, sent=1),), 2.0)
    assert loads.totals() == {}
    serves(loads, A)
    hears(loads, FIRST, (to_local(A, sent=1),), 3.0)
    assert of(loads).issued == 1


def test_what_is_no_cluster_of_a_model_does_not_count():
    ways = [load(f"model/default/a/{way}", sent=1) for way in ("fallback", "local-first", "remote-first")]
    loads = heard([load("xds_server", sent=1), load("auth/x", sent=1), *ways])
    assert loads.totals() == {}


# From clusters to sides.


def test_a_request_that_found_no_replica_is_of_the_remote_side():
    loads = heard([to_local(A), away(A, sent=3, ok=3), to_backend(sent=3, ok=3)], away=0)
    assert (of(loads), of(loads, "model/default/a/remote")) == (Count(), Count(3, 3))


def test_what_gets_a_credential_passes_the_cluster_of_its_model():
    reported = [to_local(A), away(A, sent=3, ok=3), to_backend(sent=3, ok=3, credential=True)]
    loads = heard(reported, away=50, credential=True, models=(A, B))
    assert of(loads, "model/default/a/remote") == Count(3, 3)


def test_the_only_model_of_a_backend_has_all_that_the_backend_counts():
    loads = heard([away(A, sent=1, ok=1), to_backend(sent=5, ok=4, bad=1, now=2)], away=50)
    assert of(loads, "model/default/a/remote") == Count(5, 4, 1, 2)


def test_a_request_that_one_cluster_counts_in_this_report_and_the_other_in_the_next_is_one():
    loads = heard([to_local(A), to_backend(sent=1, ok=1)], [away(A, sent=1, ok=1), to_backend()], away=50)
    assert of(loads, "model/default/a/remote") == Count(1, 1)


def test_of_models_that_share_a_backend_the_one_that_is_sent_there_has_what_is_not_the_others():
    loads = Loads()
    serves(loads, A, away=100)
    serves(loads, B, away=0)
    hears(loads, FIRST, (to_local(A), away(B, sent=2, ok=2), to_backend(sent=7, ok=6, bad=1)), 1.0)
    assert (of(loads, "model/default/a/remote"), of(loads, "model/default/b/remote")) == (Count(5, 4, 1), Count(2, 2))


def test_what_one_cluster_counts_later_than_the_other_is_taken_off_then():
    loads = Loads()
    serves(loads, A, away=100)
    serves(loads, B, away=0)
    hears(loads, FIRST, (to_local(A), away(B, sent=2, ok=2), to_backend(sent=1, ok=1)), 1.0)
    hears(loads, FIRST, (to_local(A), away(B), to_backend(sent=4, ok=4)), 2.0)
    assert (of(loads, "model/default/a/remote"), of(loads, "model/default/b/remote")) == (Count(3, 3), Count(2, 2))


def shared_by(*reports):
    """The remote sides of A, which is sent to a backend directly, and of B, which passes a cluster of its own."""
    loads = Loads()
    serves(loads, A, away=100)
    serves(loads, B, away=0)
    for now, report in enumerate(reports, 1):
        hears(loads, FIRST, (to_local(A), *report), float(now))
    return of(loads, "model/default/a/remote"), of(loads, "model/default/b/remote")


def test_who_sends_first_is_counted_first_also_while_the_backend_has_nothing_to_do():
    reports = ([away(B, sent=1, now=1), to_backend()], [away(B, ok=1), to_backend(sent=1, ok=1)])
    assert shared_by(*reports) == (Count(), Count(1, 1))


def test_what_ended_at_the_backend_and_not_yet_for_who_sent_it_is_of_nobody_else():
    ended = [away(B, sent=1, now=1), to_backend(sent=1, ok=1)]
    told = [away(B, ok=1), to_backend()]
    assert shared_by(ended) == (Count(), Count(1, 0, 0, 1))
    assert shared_by(ended, told) == (Count(), Count(1, 1))
    # Requests of A that end meanwhile are told one report later.
    both = [away(B, sent=1, now=1), to_backend(sent=3, ok=2, bad=1)]
    assert shared_by(both) == (Count(2, 1), Count(1, 0, 0, 1))
    assert shared_by(both, told) == (Count(2, 1, 1), Count(1, 1))
    for_long = [away(B, now=1), to_backend(now=1)]
    streaming = [away(B, sent=1, now=1), to_backend(sent=3, ok=2, now=1)]
    assert shared_by(streaming, for_long) == (Count(2, 2), Count(1, 0, 0, 1))


def test_what_was_told_too_early_is_taken_off_later_however_long_nothing_happens():
    early = [away(B, sent=1, now=1), to_backend(sent=1, ok=1)]
    late = [away(B, now=1), to_backend()]
    at_rest = [away(B), to_backend()]
    more = [away(B), to_backend(sent=5, ok=5)]
    assert shared_by(early, late, [away(B, ok=1), to_backend()], at_rest, at_rest, more) == (Count(5, 5), Count(1, 1))


def test_what_never_got_to_the_backend_is_taken_off_nobody():
    refused = [away(B, sent=2, ok=1, bad=1), to_backend()]
    found_nobody = [away(B, bad=1), to_backend()]
    more = [away(B), to_backend(sent=5, ok=4, bad=1)]
    at_rest = [away(B), to_backend()]
    assert shared_by(refused, found_nobody, at_rest, more) == (Count(5, 4, 1), Count(2, 1, 2))


def test_of_two_that_are_sent_there_directly_nobody_knows_whose_is_what():
    loads = heard([to_local(A), to_local(B), to_backend(sent=7, ok=7)], away=50, models=(A, B))
    assert loads.in_flight(1.0) == {}, "nor how many a model has in flight at both sides"
    assert of(loads, BACKEND) == Count(7, 7)
    serves(loads, B, away=0)
    hears(loads, FIRST, (to_local(A), to_local(B), to_backend(sent=1, ok=1)), 2.0)
    assert of(loads, "model/default/a/remote") == Count(1, 1)
    assert loads.in_flight(2.0) == {f"model/default/{name}/{side}": 0 for name in "ab" for side in ("local", "remote")}


def test_requests_that_are_still_there_after_traffic_returned_are_of_who_sent_them():
    loads = heard([to_local(A), to_backend(sent=1, now=1)], away=50)
    serves(loads, A, away=0)
    hears(loads, FIRST, (to_local(A), to_backend(ok=1)), 2.0)
    assert of(loads, "model/default/a/remote") == Count(1, 1)


# Several remote backends of one route.

BOTH = a_remote(), a_remote("b.example", name="remote-b")
FIRST_BACKEND, SECOND_BACKEND = (backend_name(A, one) for one in BOTH)


def serves_both(loads, model=A, remotes=BOTH, **shares):
    keys = [ResourceKey(CLUSTER, backend_name(model, one)) for one in remotes]
    loads.set_route(
        model, a_route_with(*remotes, shares={one.replace("_", "-"): share for one, share in shares.items()}), keys
    )


def test_each_remote_backend_of_a_route_is_a_side_of_its_own():
    loads = Loads()
    serves_both(loads, remote=30, remote_b=20)
    hears(loads, FIRST, (to_local(A), load(FIRST_BACKEND, sent=3, ok=3), load(SECOND_BACKEND, sent=2, bad=2)), 1.0)
    assert of(loads, "model/default/a/remote") == Count(3, 3)
    assert of(loads, "model/default/a/remote-b") == Count(2, 0, 2)
    assert loads.in_flight(1.0) == {f"model/default/a/{side}": 0 for side in ("local", "remote", "remote-b")}


def test_what_reaches_one_of_them_after_the_other_failed_passes_its_own_cluster():
    loads = Loads()
    serves_both(loads, remote=50)
    reported = to_local(A), load("model/default/a/remote-b", sent=4, ok=4), load(SECOND_BACKEND, sent=4, ok=4)
    hears(loads, FIRST, (*reported, load(FIRST_BACKEND, sent=9, ok=5, bad=4)), 1.0)
    assert of(loads, "model/default/a/remote") == Count(9, 5, 4)
    assert of(loads, "model/default/a/remote-b") == Count(4, 4)


def test_a_route_that_shares_one_of_its_backends_leaves_no_doubt_of_the_other():
    loads = Loads()
    serves_both(loads, remote=30, remote_b=20)
    serves(loads, B, away=50)
    clusters = to_local(A), to_local(B), load(FIRST_BACKEND, sent=1), load(SECOND_BACKEND, sent=2)
    hears(loads, FIRST, clusters, 1.0)
    assert of(loads, "model/default/a/remote") is None
    assert of(loads, "model/default/a/remote-b") == Count(2)
    loads.remove_route(B)
    hears(loads, FIRST, (to_local(A), load(FIRST_BACKEND, sent=1), load(SECOND_BACKEND)), 2.0)
    assert of(loads, "model/default/a/remote") == Count(1)


def test_a_remote_backend_that_comes_later_has_had_no_requests():
    loads = heard([to_local(A), away(A)], away=50)
    serves_both(loads, remote=50)
    hears(loads, FIRST, (to_local(A), away(A), load("model/default/a/remote-b")), 2.0)
    assert of(loads, "model/default/a/remote-b") == Count()


def test_a_route_that_comes_or_goes_while_a_report_is_read_counts_as_it_does_then():
    loads = heard(models=(A,))
    report = ReportedLoads.of((to_local(A, sent=1), to_local(B, sent=2)))
    parts = loads.report_received(FIRST, report, 1.0)
    next(parts)
    assert loads.streams(1.0) == {}
    loads.remove_route(A)
    serves(loads, B)
    at_once(parts)
    assert of(loads) is None
    assert of(loads, "model/default/b/local") == Count(2, 0, 0, 0)


class CountingUsers(BackendUsers):
    """Counts the clusters that are looked up."""

    def __init__(self):
        super().__init__()
        self.looked_up = 0

    def counts_as(self, cluster):
        self.looked_up += 1
        return super().counts_as(cluster)


def test_a_route_that_is_published_again_with_the_same_sides_has_nothing_looked_up_again():
    """Whatever its split is by then: a report may name thousands of clusters, which are looked up in parts."""
    users, counts, report = CountingUsers(), StreamCounts(), ReportedLoads.of((to_local(A, sent=1), to_backend(sent=2)))
    remote, backend = a_remote(), [ResourceKey(CLUSTER, BACKEND)]
    users.set_route(A, a_route(remote, away=10), backend)
    found = at_once(counts.find_clusters(report, users))
    users.set_route(A, a_route(remote, away=20), backend)
    counts.add_report(report, users, 1.0, found)
    assert users.looked_up == 2
    assert counts.counts["model/default/a/remote"] == Count(2, 0, 0, 0)
    found = at_once(StreamCounts().find_clusters(report, users))
    users.set_route(A, a_route(), ())
    StreamCounts().add_report(report, users, 1.0, found)
    assert users.looked_up == 6


def test_all_sides_of_a_route_that_is_gone_are_forgotten():
    loads = Loads()
    serves_both(loads, remote=30, remote_b=20)
    hears(loads, FIRST, (to_local(A), load(FIRST_BACKEND, sent=3)), 1.0)
    loads.remove_route(A)
    assert [name for name in loads.totals() if name.startswith("model/")] == []
    assert [name for name in loads.streams(1.0)[FIRST].counts if name.startswith("model/")] == []


# What became of the requests to a backend.


def test_the_answers_of_the_last_seconds():
    loads = heard([to_backend(ok=3, bad=1)], [OTHER, to_backend(ok=1, bad=2)], away=50)
    assert loads.answers(BACKEND, OF_A, 2.0) == Answers(succeeded=4, failed=3)
    hears(loads, FIRST, (to_backend(),), 1.5 + REAL.reports.window)
    assert loads.answers(BACKEND, OF_A, 1.5 + REAL.reports.window) == Answers(succeeded=1, failed=2)


def test_answers_since_a_moment_are_those_of_reports_on_no_time_before_it():
    loads = heard([to_backend(ok=3, bad=1)], [OTHER, to_backend(bad=2)], away=50)
    moments = [(0.0, Answers(3, 3)), (0.5, Answers(0, 2)), (1.0, Answers(0, 2)), (1.1, Answers(0, 0))]
    assert [(began, loads.answers(BACKEND, OF_A, 2.0, began)) for began, _ in moments] == moments
    # Where reports of half a second are one, the part has begun with the first of them.
    hears(loads, FIRST, (to_backend(bad=1),), 3.0)
    at_once(loads.report_received(OTHER, ReportedLoads.of((replace(to_backend(bad=1), seconds=2.0),)), 3.1))
    assert [loads.answers(BACKEND, OF_A, 3.1, began).failed for began in (1.1, 1.2)] == [2, 0]


def serves_with(loads, remote, *models):
    """Serve models with a remote backend, a half away; the name of its cluster for each."""
    clusters = [backend_name(model, remote) for model in models]
    for model, cluster in zip(models, clusters, strict=True):
        loads.set_route(model, a_route(remote, away=50), [ResourceKey(CLUSTER, cluster)])
    return clusters


def test_without_a_credential_what_another_namespace_sends_to_the_same_backend_is_told_from_ones_own():
    loads = Loads()
    own, others = serves_with(loads, a_remote(), A, NEXT_DOOR)
    hears(loads, FIRST, (to_local(A), load(own, sent=3, ok=3), load(others, sent=9, bad=9)), 1.0)
    assert loads.answers(own, OF_A, 1.0) == Answers(3, 0)
    assert loads.answers(others, frozenset({"model/next/door/remote"}), 1.0) == Answers(0, 9)
    assert of(loads, "model/default/a/remote") == Count(3, 3), "it was unknown while another one sent there, too"


def test_of_a_backend_that_namespaces_share_each_is_told_what_passed_its_own_clusters():
    """The default backend has one credential for all."""
    loads, everybodys = Loads(), a_remote(auth=with_token(CredentialSource(source="DefaultBackend")))
    (shared,) = {*serves_with(loads, everybodys, A, B, NEXT_DOOR)}
    sent = away(A, sent=3, ok=3), away(B, sent=1, bad=1), away(NEXT_DOOR, sent=9, bad=9)
    hears(loads, FIRST, (*sent, load(shared, sent=13, ok=3, bad=10)), 1.0)
    assert loads.answers(shared, OF_A, 1.0) == Answers(3, 0)
    assert loads.answers(shared, OF_A | {"model/default/b/remote"}, 1.0) == Answers(3, 1)
    assert loads.answers(shared, frozenset({"model/next/door/remote"}), 1.0) == Answers(0, 9)


def test_what_failed_before_it_got_to_a_shared_backend_is_no_fault_of_it():
    """There is no token, say; or a request is refused since its path leads out."""
    loads, everybodys = Loads(), a_remote(auth=with_token(CredentialSource(source="DefaultBackend")))
    shared, _ = serves_with(loads, everybodys, A, NEXT_DOOR)
    hears(loads, FIRST, (away(A, sent=9, ok=4, bad=5), load(shared)), 1.0)
    assert loads.answers(shared, OF_A, 1.0) == Answers(0, 0)


def test_what_came_back_from_a_shared_backend_is_said_of_no_more_than_ones_own_failures():
    loads, everybodys = Loads(), a_remote(auth=with_token(CredentialSource(source="DefaultBackend")))
    shared, _ = serves_with(loads, everybodys, A, NEXT_DOOR)
    looped = ClusterLoad(shared, 1.0, (LocalityLoad(9, 0, 9, 0, ((LEADS_HERE, 9),)),))
    hears(loads, FIRST, (away(A, sent=1, bad=1), away(NEXT_DOOR, sent=8, bad=8), looped), 1.0)
    assert loads.answers(shared, OF_A, 1.0) == Answers(0, 1, came_back=1)
    assert loads.answers(shared, frozenset({"model/next/door/remote"}), 1.0) == Answers(0, 8, came_back=8)


def test_a_backend_without_requests_had_no_answers():
    assert heard([to_local(A)]).answers(BACKEND, OF_A, 1.0) == Answers(0, 0)


@pytest.mark.parametrize("loads", [Loads(), heard([to_backend(ok=1)], away=50)], ids=["never", "long ago"])
def test_while_no_envoy_reports_nothing_is_known_of_a_backend(loads):
    assert loads.answers(BACKEND, OF_A, 1.1 + REAL.reports.old_after) is None
