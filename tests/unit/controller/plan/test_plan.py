"""One plan: from what is known to the status."""

import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.contract.health import RemoteHealth, unknown
from controller.api.contract.status import HISTORY_LENGTH, ModelDeploymentStatus
from controller.decision import SentRequests, Unknown
from controller.frontend.claims import Refusal
from controller.observe.index import previous_status
from controller.observe.proxies import Programmed
from controller.plan.conditions import BY_ENVOY, refused_conditions
from controller.plan.explanation import explain
from controller.plan.plan import plan
from controller.plan.transitions import transitions
from tests.support.indexed import view_of
from tests.support.objects import a_model, a_service, a_slice
from tests.support.observations import observed, planned
from tests.support.proxies import AllProgrammed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
READY = a_slice().ready("10.0.0.1")


class Pending(AllProgrammed):
    """One Envoy, which has not acknowledged anything yet."""

    def report(self, model, route):
        return Programmed(connected=1, programmed=0)


GONE = a_slice().not_ready("10.0.0.1")


def test_the_route_carries_the_decision():
    status = planned(a_model().with_remote("r"), a_service().port(80), READY)
    assert str(status.route.split) == "100/0"
    assert (status.route.port, status.serving_port) == (80, 80)
    assert status.route.remote.host == "r"
    assert (status.split.reason, status.split.since) == ("Steady", NOW)
    assert (status.local.ready, status.local.total) == (1, 1)
    assert status.remote.host == "r"


def test_prior_fault_30_every_part_of_the_status_is_written():
    written = planned(a_model().with_remote("r"), a_service().port(80), READY, generation=4).as_object()
    assert written.keys() == {
        "observedGeneration",
        "conditions",
        "servingPort",
        "frontend",
        "reason",
        "split",
        "verdicts",
        "local",
        "remote",
        "route",
        "memory",
        "history",
        "offloadingStatus",
    }
    assert written["observedGeneration"] == 4


def test_what_is_not_enabled_has_no_remote_side():
    status = planned(a_model().with_remote("r").disabled(), a_service().port(80), GONE)
    assert (str(status.route.split), status.route.remote) == ("100/0", None)


def test_a_model_that_fronts_nothing_has_no_route():
    status = planned(a_model().with_remote("r"))
    assert (status.route, status.split, status.serving_port) == (None, None, None)
    assert {one.type: one.reason for one in status.conditions}["ResolvedRefs"] == "ServiceNotFound"


def test_the_same_again_writes_the_same():
    model, objects = a_model().with_remote("r"), (a_service().port(80), READY)
    first = planned(model, *objects)
    assert planned(model, *objects, status=first, at=NOW + timedelta(hours=1)) == first


def test_prior_fault_10_a_restart_goes_on_where_it_was():
    model, service = a_model().with_remote("r"), a_service().port(80)
    down = planned(model, service, GONE)
    back = planned(model, service, READY, status=down, at=NOW + timedelta(seconds=10))
    assert str(back.split) == "17/83"
    later = planned(model, service, READY, status=back, at=NOW + timedelta(seconds=12))
    assert str(later.split) == "50/50"


def test_a_new_split_is_no_new_generation():
    model, service = a_model().with_remote("r"), a_service().port(80)
    programmed = planned(model, service, READY)

    def programmed_at(generation):
        status = planned(model, service, GONE, status=programmed, generation=generation, proxies=Pending())
        return {one.type: one.reason for one in status.conditions}["Programmed"]

    assert programmed_at(1) == "Programmed"
    assert programmed_at(2) == "Pending"


def test_the_history_has_one_entry_for_the_steps_of_one_reason():
    model, service = a_model().with_remote("r"), a_service().port(80)
    status = planned(model, service, READY)
    for second, slices in enumerate([GONE, GONE, READY, READY, READY, READY, READY, READY, READY], start=1):
        status = planned(model, service, slices, status=status, at=NOW + timedelta(seconds=second))
    assert [(one.split, one.reason) for one in status.history] == [
        ("100/0", "Steady"),
        ("83/17", "Recovering"),
        ("0/100", "LocalDown"),
        ("100/0", "Steady"),
    ]


def test_the_history_is_bounded_and_the_newest_comes_first():
    model, service, status = a_model().with_remote("r").offloading(recoverAfter="0s"), a_service().port(80), None
    model = model.with_remote("r")
    for hour in range(2 * HISTORY_LENGTH):
        slices = GONE if hour % 2 else READY
        status = planned(model, service, slices, status=status, at=NOW + timedelta(hours=hour))
    assert len(status.history) == HISTORY_LENGTH
    assert status.history[0].at == NOW + timedelta(hours=2 * HISTORY_LENGTH - 1)
    assert [one.at for one in status.history] == sorted((one.at for one in status.history), reverse=True)


def test_a_status_that_is_not_ours_counts_as_none():
    for status in ({"offloadingStatus": True}, {"split": "all of it"}, {"route": {"port": 0}}):
        assert previous_status(a_model().stored(status=status)) == ModelDeploymentStatus()


def test_a_memory_that_is_not_ours_counts_as_none():
    model, objects = a_model().with_remote("r"), (a_service().port(80), READY)
    strange = planned(model, *objects).model_copy(update={"memory": {"reason": "Because"}})
    assert str(planned(model, *objects, status=strange).split) == "100/0"


@pytest.mark.parametrize(
    ("model", "objects", "reason"),
    [
        (a_model().with_remote("r"), (a_service().port(80), READY), "Steady"),
        (a_model().with_remote("r"), (), "ServiceNotFound"),
        (a_model(), (a_service().port(80), READY), "NoRemoteBackend"),
        (a_model().with_remote("r").disabled(), (a_service().port(80), READY), "Disabled"),
    ],
)
def test_in_one_word(model, objects, reason):
    status = planned(model, *objects)
    assert status.reason == reason
    assert status.frontend == ("Gateway" if status.split else None)


def test_why_a_model_that_is_served_is_not_accepted_comes_before_why_it_is_split_so():
    served = planned(a_model().with_remote("r"), a_service().port(80), READY)
    refused = refused_conditions(served.conditions, Refusal("Invalid", "spec.model: is required"), 2)
    assert served.model_copy(update={"conditions": refused}).reason == "Invalid"


def test_an_annotation_that_cannot_be_read_is_told_and_has_no_effect():
    status = planned(a_model().with_remote("r").overridden("half"), a_service().port(80), READY)
    (accepted,) = (one for one in status.conditions if one.type == "Accepted")
    assert accepted.reason == "AcceptedWithWarnings"
    assert accepted.message.startswith("metadata.annotations.beamlit.com/override: has the unknown word 'half'")
    assert str(status.split) == "100/0"


@given(
    ready=st.lists(st.booleans(), max_size=4),
    remote=st.none() | st.sampled_from(["r", "r:81", "[::1]:80"]),
    enabled=st.booleans(),
    annotation=st.sampled_from(["", "remote=30", "remote=30 until=2026-01-01T00:00:01Z", "x"]),
    found=st.booleans(),
)
def test_a_status_reads_back_as_it_was_written(ready, remote, enabled, annotation, found):
    model = a_model().overridden(annotation)
    model = model.with_remote(remote, headersToAdd={"x": "y"}) if remote else model
    model = model if enabled else model.disabled()
    slices = a_slice()
    for index, one in enumerate(ready):
        address = f"10.0.0.{index}"
        slices = slices.ready(address) if one else slices.not_ready(address)
    status = planned(model, *([a_service().port(80)] if found else []), slices)
    assert previous_status(model.stored(status=status.as_object())) == status


def test_an_override_and_a_pause_hold_the_split_and_not_the_limit():
    model = a_model().with_remote("r").offloading(maxRequestsPerReplica=4)
    for held in (model, model.overridden("remote=30"), model.paused()):
        status = planned(held, a_service().port(80), READY)
        assert status.route.local.max_requests_per_replica == 4
        assert status.local.capacity == 4


def test_the_message_says_what_leaves():
    status = planned(a_model().with_remote("r").offloading(maxRequestsPerReplica=4), a_service().port(80), READY)
    assert status.split.message == (
        "1 of 1 local replicas are ready; what is more than 4 requests in flight (4 for each) is sent away"
    )


def test_there_is_no_capacity_where_nothing_may_leave():
    for model in (a_model().with_remote("r").disabled(), a_model()):
        assert planned(model.offloading(maxRequestsPerReplica=4), a_service().port(80), READY).local.capacity is None


class Finding(AllProgrammed):
    """Somebody who checks remote backends and found this one so, or not yet."""

    def __init__(self, found):
        self.found = found

    def remote(self, model, remote):
        return self.found


BROKEN = RemoteHealth(healthy=False, message="GET /healthz answers 503", reason="ErrorAnswer", since=NOW)


def found(facts, *objects, model=None, before=None, generation=1, at=NOW):
    """Reconcile a model of whose remote backend this is known."""
    model = model or a_model().with_remote("r")
    known = {"status": before, "generation": generation, "proxies": Finding(facts)}
    return planned(model, a_service().port(80), *objects, at=at, **known)


def remote_healthy(status):
    (one,) = (one for one in status.conditions if one.type == "RemoteHealthy")
    return one.status, one.reason, one.message


def test_a_remote_that_does_not_answer_is_in_the_status_with_its_reason():
    status = found(BROKEN, READY)
    assert remote_healthy(status) == ("False", "ErrorAnswer", "GET /healthz answers 503")
    assert status.remote.healthy is False
    assert (str(status.split), status.split.reason) == ("100/0", "RemoteDown")
    assert status.split.message == (
        "the remote backend does not answer (GET /healthz answers 503), so every request stays local"
    )


def test_with_nothing_local_requests_go_to_the_remote_even_if_it_does_not_answer():
    status = found(BROKEN, GONE)
    assert (str(status.split), status.split.reason) == ("0/100", "LocalDown")
    ready = {one.type: one for one in status.conditions}["Ready"]
    assert (ready.status, ready.reason) == ("False", "NothingAnswers")


def test_the_same_found_again_later_writes_the_same():
    first = found(BROKEN, READY)
    assert found(BROKEN, READY, before=first, at=NOW + timedelta(hours=1)) == first


def test_while_it_is_being_found_out_what_was_known_of_the_same_backend_stays():
    first = found(BROKEN, READY)
    assert found(None, READY, before=first) == first
    unchecked = found(unknown("nobody checks"), READY)
    assert found(None, READY, before=unchecked) == unchecked
    assert remote_healthy(found(None, READY, before=first, generation=2)) == remote_healthy(first)


def test_of_another_backend_nothing_is_known():
    first = found(BROKEN, READY)
    another = a_model().with_remote("another")
    assert remote_healthy(found(None, READY, before=first, model=another))[0] == "Unknown"


@pytest.mark.parametrize("meanwhile", [unknown("not yet"), RemoteHealth(reason="SecretNotFound")])
def test_that_a_remote_answers_again_is_told_though_nothing_was_known_in_between(meanwhile):
    stored, told = a_model().with_remote("r").stored(), []
    healthy = RemoteHealth(healthy=True)
    status = found(healthy, READY)
    for facts in (BROKEN, meanwhile, healthy, meanwhile, healthy):
        before, status = status, found(facts, READY, before=status, at=NOW)
        told += [event.reason for event in transitions(stored, before, status, NOW)]
    assert [reason for reason in told if reason.startswith("Remote")] == ["RemoteNotHealthy", "RemoteHealthy"]


def test_of_what_may_not_leave_nothing_is_asked():
    status = found(BROKEN, READY, model=a_model().with_remote("r").disabled())
    assert remote_healthy(status) == ("Unknown", "NoRemote", "nothing may leave: spec.enabled is false")
    assert status.remote.healthy is None


LACKING = RemoteHealth(reason="SecretNotFound", message="Secret default/s does not exist")


def test_in_shadow_it_is_said_that_nothing_could_leave_and_nobody_is_to_mend_it_now():
    shadow = a_model().with_remote("r").offloading(mode="Shadow")
    status = found(LACKING, READY, model=shadow)
    assert (str(status.split), status.split.reason) == ("100/0", "Shadow")
    assert status.split.would_be == "100/0 NoRemoteBackend"
    assert [one.rule for one in status.verdicts if one.matched][:2] == ["Shadow", "NoRemoteBackend"]
    assert explain(shadow.stored(status=status.as_object()), NOW).as_object()["wouldDecideNext"] == "NoRemoteBackend"
    assert status.split.message.endswith("every request stays local: Secret default/s does not exist")
    assert status.remote.reason == "SecretNotFound"
    said = {one.type: one.status for one in status.conditions}
    assert (said["ResolvedRefs"], said["Ready"], said["RemoteHealthy"]) == ("True", "True", "Unknown")
    assert found(None, READY, model=shadow, before=status) == status, "a restart takes nothing back"
    assert found(None, READY, model=shadow, before=status, generation=2).split.would_be == "100/0 Steady"
    there = found(unknown("nobody checks"), READY, model=shadow, before=status)
    assert (there.split.would_be, there.remote.reason) == ("100/0 Steady", None)


def test_in_shadow_what_is_behind_the_gateway_too_is_known_as_it_is_asked_for():
    known = observed(a_model().with_remote("r").offloading(mode="Shadow"), a_service().port(80), READY)
    (remote,) = known.remotes

    class OfTheObject(AllProgrammed):
        def remote(self, model, asked):
            return LACKING if asked.digest == remote.digest else None

    behind = replace(
        known,
        remotes=(remote.model_copy(update={"through_gateway": True}),),
        proxies=OfTheObject().facts(known.stored.ref),
    )
    assert plan(behind, NOW).status.split.would_be == "100/0 NoRemoteBackend"


@pytest.mark.parametrize("facts", [BROKEN, RemoteHealth(healthy=True, since=NOW)])
def test_in_shadow_what_was_found_before_of_who_is_not_asked_any_more_is_forgotten(facts):
    shadow = a_model().with_remote("r").offloading(mode="Shadow")
    status = found(facts, READY, model=shadow, before=found(facts, READY), generation=2)
    assert (status.split.would_be, status.remote.healthy) == ("100/0 Steady", None)


MODEL, OBJECTS = a_model().with_remote("r"), (a_service().port(80), READY)
ELSEWHERE = SentRequests(local=0, remote=20, seconds=9.7)


def failing_over(traffic, **known):
    before = planned(MODEL, *OBJECTS)
    status = planned(MODEL, *OBJECTS, status=before, traffic=traffic, at=NOW + timedelta(seconds=10), **known)
    (said,) = (one for one in status.conditions if one.type == "FailingOver")
    return said, status


def test_requests_that_go_elsewhere_are_told_with_their_number():
    said, status = failing_over(ELSEWHERE)
    assert (said.status, said.reason) == ("True", "ReplicasNotUsed")
    assert said.message.startswith("20 of the last 20 requests (10 s) went to the remote backend at a split of 100/0")
    assert status.split.message.endswith(f"no request is sent away; but {said.message}")
    assert (str(status.split), status.history[0].message.count("but")) == ("100/0", 0)


@pytest.mark.parametrize(
    ("behavior", "type_"),
    [({}, "FailingOver"), ({"maxRequestsPerReplica": 4}, "Offloading")],
    ids=["no limit", "limit"],
)
def test_with_a_first_byte_timeout_replicas_may_also_be_late_and_such_requests_are_of_both_sides(behavior, type_):
    for patience, is_said in (({}, False), ({"firstByteTimeout": "1s"}, True)):
        model, status = MODEL.offloading(**behavior, **patience), None
        for _ in range(2):  # nothing is concluded before Envoys have the split
            status = planned(model, *OBJECTS, status=status, traffic=SentRequests(5, 5, 10.0))
        said = status.condition(type_).message
        assert said.startswith("5 of the last 10 requests (10 s) went to the remote backend at a split of 100/0")
        assert (
            "later than firstByteTimeout: a request is asked of both sides then, and counts at each" in said
        ) is is_said


@pytest.mark.parametrize(
    "traffic", [Unknown("nothing reports load"), SentRequests(0, 0, 0.0), SentRequests(20, 0, 9.7)]
)
def test_nothing_is_told_of_requests_that_go_where_they_should_or_of_which_nothing_is_known(traffic):
    said, status = failing_over(traffic)
    assert (said.status, said.reason) == ("False", "AsDecided")
    assert status.split.message.endswith("no request is sent away")


def limited(**behavior):
    """The model, of which the excess leaves."""
    return MODEL.offloading(**{"maxRequestsPerReplica": 4, "restoreAfter": "60s", **behavior})


LIMITED = limited()
ONE_LEFT, NONE_LEFT = SentRequests(80, 1, 10.0), SentRequests(80, 0, 10.0)


def overflowing():
    """The status in which an overflow begins, at NOW."""
    status = planned(LIMITED, *OBJECTS, status=planned(LIMITED, *OBJECTS), traffic=ONE_LEFT)
    assert status.condition("Offloading").reason == "Overflow"
    return status


def offloading(left, model=LIMITED):
    """What Offloading says of each second; whether one of the last 81 requests had left is in `left`."""
    view = view_of(*OBJECTS)
    status = planned(model, view)
    for second, one in enumerate(left, 1):
        traffic = SentRequests(80, int(one), 10.0)
        status = planned(model, view, status=status, traffic=traffic, at=NOW + timedelta(seconds=second))
        yield status.condition("Offloading")


def test_requests_that_leave_by_chance_turn_offloading_twice_in_restoreafter_at_the_most():
    told = [*told_of([(80, int(second % 20 < 10)) for second in range(600)], LIMITED)]
    said = [one.reason for _, one, _ in told]
    assert said[0] == "Overflow"
    assert 2 <= sum(was != now for was, now in itertools.pairwise(said)) <= 2 * 600 / 60
    assert 3 <= told[-1][2] <= 2 * 600 / 60


def test_an_overflow_is_told_at_once_and_taken_back_restoreafter_later():
    said = [one.reason for one in offloading([False] * 5 + [True] * 10 + [False] * 100)]
    assert said == ["Steady"] * 5 + ["Overflow"] * 60 + ["Steady"] * 50


@pytest.mark.parametrize(
    ("health", "answered", "told"),
    [(BROKEN, 0, False), (BROKEN, 1, True), (unknown("nobody checks"), 0, True)],
    ids=["it does not answer", "it is said not to, and does", "nobody knows"],
)
@pytest.mark.parametrize(("model", "reason"), [(LIMITED, "Overflow"), (MODEL, "Failover")])
def test_what_is_on_its_way_to_a_remote_backend_that_does_not_answer_has_not_left(
    model, reason, health, answered, told
):
    status, traffic = None, SentRequests(80, 1, 10.0, answered)
    for _ in range(2):  # nothing is concluded before Envoys have the split
        status = planned(model, *OBJECTS, status=status, traffic=traffic, proxies=Finding(health))
    assert status.condition("Offloading").reason == (reason if told else "RemoteDown")


def test_what_leaves_for_want_of_room_beside_a_share_is_told_with_how_many():
    model, traffic = LIMITED.overridden("remote=6"), SentRequests(1000, 500, 10.0)
    before = planned(model, *OBJECTS)
    status = planned(model, *OBJECTS, status=before, traffic=traffic)
    assert (status.split.summary, status.reason) == ("94/6", "Override")
    said, beside = (
        status.condition("Offloading"),
        "500 of the last 1500 requests (10 s) went to the remote backend at a ",
    )
    assert (said.status, said.reason, said.message) == ("True", "Override", status.split.message)
    assert said.message.endswith(f"; {beside}split of 94/6: what the replicas have no room for leaves")
    failing = status.condition("FailingOver")
    assert (failing.status, failing.message.partition(", but ")[2]) == (
        "False",
        "for what the replicas have no room for",
    )
    assert status.detour.message == beside + "split of 94/6: what the replicas have no room for leaves"
    known = explain(model.stored(status=status.as_object()), NOW)
    assert known.as_object()["detour"] == {"reason": "Overflow", "message": status.detour.message, "toRemote": True}
    text = known.as_text()
    assert "6 % go to the remote backend by the split, and some left by themselves lately\n" in text
    assert f"  measured     500 of the last 1500 requests (10 s, 33%) left, counted 0s ago; {beside}" in text
    # As many as the share, give or take what is chance, are no news.
    usual = planned(model, *OBJECTS, status=before, traffic=SentRequests(1400, 100, 10.0))
    assert usual.condition("Offloading").message == usual.split.message == before.split.message


def test_an_overflow_that_is_over_is_told_for_a_minute_at_the_most():
    said = [one.reason for one in offloading([True] + [False] * 70, limited(restoreAfter="1h"))]
    assert said == ["Overflow"] * 60 + ["Steady"] * 11


@pytest.mark.parametrize("traffic", [SentRequests(80, 0, 10.0), SentRequests(0, 0, 10.0), Unknown("nothing reports")])
def test_while_an_overflow_rests_it_says_that_none_is_known_to_leave_now(traffic):
    at, before = NOW + timedelta(seconds=1), overflowing()
    said = planned(LIMITED, *OBJECTS, status=before, traffic=traffic, at=at).condition("Offloading")
    assert (said.status, said.reason) == ("True", "Overflow")
    assert said.message == (
        "none of the last requests is known to have left for want of room, and some did since 2026-01-01T00:00:00Z"
    )


def test_an_overflow_does_not_rest_without_restoreafter_nor_by_a_clock_that_was_set_back():
    for model, at in ((limited(restoreAfter="0s"), NOW), (LIMITED, NOW - timedelta(seconds=1))):
        status = planned(model, *OBJECTS, status=overflowing(), traffic=NONE_LEFT, at=at)
        assert status.condition("Offloading").reason == "Steady"


@pytest.mark.parametrize("other", [MODEL, LIMITED.paused(), LIMITED.disabled()], ids=["no limit", "paused", "disabled"])
def test_an_overflow_does_not_outlive_what_it_was_of(other):
    after = planned(other, *OBJECTS, status=overflowing(), traffic=NONE_LEFT, at=NOW + timedelta(seconds=1))
    assert after.condition("Offloading").reason == after.split.reason != "Overflow"


RARE = a_model().with_remote("r").offloading(restoreAfter="40s")


def told_of(sent, model=RARE):
    """What FailingOver and Offloading say of each second, with the events; `sent` has how many went to each side."""
    view = view_of(*OBJECTS)
    status, stored, events = planned(model, view), model.stored(), []
    for second, (local, remote) in enumerate(sent, 1):
        at, before = NOW + timedelta(seconds=second), status
        traffic = SentRequests(local, remote, 10.0)
        status = planned(model, view, status=before, traffic=traffic, at=at)
        events += [one.reason for one in transitions(stored, before, status, at)]
        failing, leaving = status.condition("FailingOver"), status.condition("Offloading")
        # Conditions have it written, and say all of it.
        told = [one.message for one in (failing, leaving) if one.status == "True"]
        assert status.detour.message in told if status.detour else failing.status == "False"
        assert status.detour or leaving.reason not in BY_ENVOY
        yield failing, leaving, len(events)


@pytest.mark.parametrize("good", [(80, 0), (0, 0)], ids=["one of many fails", "there are few"])
def test_single_requests_that_fail_over_turn_the_condition_twice_in_restoreafter_at_the_most(good):
    told = [*told_of([(good[0], 1) if second % 20 < 10 else good for second in range(600)])]
    said = [(failing.status, offloading.reason) for failing, offloading, _ in told]
    assert said[0] == ("True", "Failover")
    assert 2 <= sum(was != now for was, now in itertools.pairwise(said)) <= 2 * 600 / 40
    assert told[-1][2] <= 2 * 600 / 40


def test_a_request_that_fails_over_is_told_at_once_and_taken_back_restoreafter_later():
    told = [*told_of([(80, 0)] * 5 + [(80, 1)] * 10 + [(80, 0)] * 60)]
    assert [failing.reason for failing, *_ in told] == ["AsDecided"] * 5 + ["ReplicasFail"] * 40 + ["AsDecided"] * 30
    message = "none of the last requests is known to have gone elsewhere, and some did since 2026-01-01T00:00:06Z"
    assert [told[20][0].message, told[20][1].message] == [message, message]


def test_what_failed_over_for_longer_than_restoreafter_is_taken_back_at_once():
    told = [failing.reason for failing, *_ in told_of([(80, 1)] * 50 + [(80, 0)] * 2)]
    assert told == ["ReplicasFail"] * 50 + ["AsDecided"] * 2


def test_that_requests_failed_over_is_a_warning_for_a_minute_at_the_most():
    told = [failing.status for failing, *_ in told_of([(80, 1)] + [(80, 0)] * 70, RARE.offloading(restoreAfter="1h"))]
    assert told == ["True"] * 60 + ["False"] * 11


@pytest.mark.parametrize("other", [RARE.paused(), RARE.disabled()], ids=["paused", "disabled"])
def test_a_warning_does_not_outlive_the_split_that_it_was_of(other):
    before = planned(RARE, *OBJECTS)
    before = planned(RARE, *OBJECTS, status=before, traffic=SentRequests(80, 1, 10.0))
    assert before.condition("FailingOver").status == "True"
    after = planned(other, *OBJECTS, status=before, traffic=SentRequests(80, 0, 10.0))
    assert after.condition("FailingOver").status == "False"


@pytest.mark.parametrize("other", [RARE.disabled(), a_model()], ids=["disabled", "no remote backend"])
def test_a_warning_does_not_rest_where_nothing_may_leave_any_longer(other):
    status = planned(RARE, *OBJECTS)
    for second, (model, traffic) in enumerate([(RARE, ONE_LEFT), (other, ONE_LEFT), (other, NONE_LEFT)]):
        status = planned(model, *OBJECTS, status=status, traffic=traffic, at=NOW + timedelta(seconds=second))
    assert status.condition("FailingOver").status == "False"


@pytest.mark.parametrize(
    "other",
    [LIMITED.disabled(), limited(mode="Shadow"), a_model().offloading(maxRequestsPerReplica=4)],
    ids=["disabled", "Shadow", "no remote backend"],
)
def test_an_overflow_does_not_rest_where_nothing_may_leave_any_longer(other):
    status = overflowing()
    # What left before is still among the last requests when the other rule decides.
    for second, traffic in enumerate((ONE_LEFT, NONE_LEFT), 1):
        status = planned(other, *OBJECTS, status=status, traffic=traffic, at=NOW + timedelta(seconds=second))
    assert status.condition("Offloading").reason == status.split.reason != "Overflow"


@pytest.mark.parametrize("by_chance", [0, 1, 2, 5])
def test_requests_that_fail_and_others_that_find_no_room_turn_what_is_told_twice_in_restoreafter_at_the_most(by_chance):
    """Just as many fail as what is told depends on, give or take one."""
    view = view_of(*OBJECTS)
    status, told, events = planned(LIMITED, view), [], []
    for second in range(1, 241):
        at, before = NOW + timedelta(seconds=second), status
        traffic = SentRequests(80, 10, 10.0, failed=5 - (second // 3 % 7 == by_chance) - second // 20 % 2)
        status = planned(LIMITED, view, status=before, traffic=traffic, at=at)
        told.append((status.condition("FailingOver").status, status.condition("Offloading").reason))
        events += transitions(LIMITED.stored(), before, status, at)
    assert set(told) <= {("True", "Failover"), ("False", "Overflow")}
    assert ("True", "Failover") in told
    assert sum(was != now for was, now in itertools.pairwise(told)) <= 2 * 240 / 60
    assert len(events) <= 1 + 2 * 240 / 60


class Partly(AllProgrammed):
    """Five Envoys, of which four have every route."""

    def report(self, model, route):
        return Programmed(connected=5, programmed=4, waiting=("envoy-5",))


class NotReported(AllProgrammed):
    """Nobody tells which Envoys have a route."""

    def report(self, model, route):
        return None


HALF = SentRequests(50, 50, 10.0)


@pytest.mark.parametrize(
    ("proxies", "who"),
    [
        (Pending(), "0 of 1 have it"),
        (Partly(), "4 of 5 have it, waiting for envoy-5"),
        (NotReported(), "which ones have it is not reported"),
    ],
    ids=["pending", "partly", "not reported"],
)
def test_while_an_envoy_may_be_on_its_way_to_a_new_split_nothing_is_concluded_and_then_it_hides_nothing(proxies, who):
    first = planned(MODEL, *OBJECTS, proxies=proxies)

    def at(seconds, status=first):
        moment = NOW + timedelta(seconds=seconds)
        seen = observed(MODEL, *OBJECTS, status=status, traffic=HALF, proxies=proxies)
        made = plan(seen, moment)
        text = explain(MODEL.stored(status=made.status.as_object()), moment).as_text()
        assert "no request is known to have gone elsewhere" not in text
        assert "(10 s) went to the remote backend at a split of 100/0, though 1 of 1 replicas are ready" in text
        assert who in text
        return made

    undecided = at(29.9)
    said = undecided.status.condition("FailingOver")
    assert (said.status, said.reason) == ("Unknown", "EnvoysBehind")
    assert (undecided.status.reason, undecided.status.detour) == ("Steady", None)
    # Though nobody sends another request, something is told by then.
    assert undecided.wake_at == NOW + timedelta(seconds=30)
    told = at(30, undecided.status)
    said, leaving = told.status.condition("FailingOver"), told.status.condition("Offloading")
    assert (said.status, said.reason, leaving.reason) == ("True", "ReplicasFail", "Failover")
    assert said.message.endswith(f", or an Envoy without this split sent them: {who}")
    assert said.message == leaving.message == told.status.detour.message
    assert (told.status.reason, told.settles_at) == ("Failover", None)


def test_what_fails_over_is_told_on_while_an_edit_is_on_its_way():
    before = failing_over(HALF)[1]
    edited = MODEL.offloading(firstByteTimeout="9s")
    at, known = NOW + timedelta(minutes=5), {"generation": 2, "traffic": HALF, "proxies": Partly()}
    status = planned(edited, *OBJECTS, status=before, at=at, **known)
    assert status.condition("Ready").reason == "Updating"
    assert status.condition("FailingOver").status == "True"


def test_what_begins_to_go_elsewhere_while_an_edit_is_on_its_way_is_told_when_that_is_late():
    status, edited, said = planned(MODEL, *OBJECTS), MODEL.offloading(firstByteTimeout="9s"), []
    known = {"generation": 2, "traffic": HALF, "proxies": Partly()}
    for second in (0, 29, 30):
        status = planned(edited, *OBJECTS, status=status, at=NOW + timedelta(minutes=5, seconds=second), **known)
        said.append(status.condition("FailingOver").status)
    assert said == ["Unknown", "Unknown", "True"]


def test_names_that_clients_chose_are_not_written_at_any_length():
    class Named(AllProgrammed):
        def report(self, model, route):
            return Programmed(connected=9, programmed=0, waiting=("x" * 8000,) * 9)

    assert len(failing_over(HALF, proxies=Named())[0].message) < 1000


def test_nothing_is_concluded_from_what_was_sent_by_another_split():
    before = planned(MODEL, a_service().port(80), GONE)
    status = planned(MODEL, *OBJECTS, status=before, traffic=ELSEWHERE)
    assert str(status.split) != "0/100"
    assert {one.type: one.status for one in status.conditions}["FailingOver"] == "False"
