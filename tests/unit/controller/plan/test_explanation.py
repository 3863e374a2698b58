"""Why requests go where they go, as people and programs read it."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from controller.api.contract.reports import RouteReport
from controller.decision import SentRequests
from controller.plan.explanation import explain
from controller.signals.load_reports import NO_LOAD
from tests.support.measured import in_flight, in_flight_each
from tests.support.objects import a_model, a_service, a_slice
from tests.support.observations import planned

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = a_model("chat").with_remote("models.example.com:443").offloading(maxRequestsPerReplica=4)
BY_HAND = MODEL.overridden("remote=30 until=2026-01-01T00:10:00Z")


def explained(model, slices, *, later=timedelta(0), envoys=None, generation=1, load=NO_LOAD):
    status = planned(model, a_service("chat").port(80), slices, load=load).as_object()
    return explain(model.stored(status=status, generation=generation), NOW + later, envoys)


NONE_READY = a_slice("chat").not_ready("10.0.0.1", "10.0.0.2")
TWO_READY = a_slice("chat").ready("10.0.0.1", "10.0.0.2")


def test_the_text_for_people():
    text = explained(BY_HAND, NONE_READY, later=timedelta(minutes=2, seconds=10)).as_text()
    assert text.startswith(
        """\
default/chat: 70 % of the requests stay local, 30 % go to the remote backend

  decided      70/30 Override, since 2026-01-01T00:00:00Z (2m10s ago)
  because      set by hand: 30 % of the requests go to the remote backend, until 2026-01-01T00:10:00Z; what \
is more than 4 in flight for each replica leaves, too
  returns      the override holds until 2026-01-01T00:10:00Z
  by itself    may change at 2026-01-01T00:10:00Z (in 7m50s)
  measured     no request is known to have gone elsewhere than the split says
  without it   LocalDown would decide: none of 2 local replicas is ready, so every request goes to the remote backend
  local        0 of 2 replicas are ready, which take 0 requests in flight
  remote       models.example.com:443 is not checked yet
  by hand      beamlit.com/override: 'remote=30 until=2026-01-01T00:10:00Z'
  programmed   True: every connected Envoy has acknowledged this generation

Rules: the first that applies decides.
   1  Disabled         no       enabled
"""
    )
    assert "   7  LocalDown        applies  none of 2 local replicas is ready" in text
    assert "  Not the cause: Disabled, Shadow, NothingAnswers, NoRemoteBackend, Paused, RemoteDown" in text
    assert "  2026-01-01T00:00:00Z  70/30   Override: set by hand" in text


def test_the_same_for_programs():
    shown = explained(BY_HAND, NONE_READY).as_object()
    assert json.loads(json.dumps(shown)) == shown
    assert shown["split"]["summary"] == "70/30"
    assert shown["split"]["changesAt"] == "2026-01-01T00:10:00Z"
    assert shown["byHand"] == {"beamlit.com/override": "remote=30 until=2026-01-01T00:10:00Z"}
    assert [one["rule"] for one in shown["rules"] if one["decides"]] == ["Override"]
    assert shown["wouldDecideNext"] == "LocalDown"
    assert "Paused" in shown["notTheCause"] and "LocalDown" not in shown["notTheCause"]
    assert shown["programmed"]["status"] == "True"
    assert shown["local"] == {"ready": 0, "total": 2, "capacity": 0, "summary": "0/2"}
    assert [one["split"] for one in shown["history"]] == ["70/30"]


def test_a_rule_that_this_version_does_not_know_is_shown():
    status = planned(MODEL, a_service("chat").port(80), TWO_READY).as_object()
    status["verdicts"] = [
        {"rule": "OfTomorrow", "matched": False, "message": "7 of 9"},
        {"rule": "AndAfter", "matched": True, "message": "8 of 9"},
    ]
    known = explain(MODEL.stored(status=status), NOW)
    assert "   1  OfTomorrow  no       7 of 9\n   2  AndAfter    decides  8 of 9\n" in known.as_text()
    assert known.as_object()["notTheCause"] == ["OfTomorrow"]


def test_when_it_may_change_is_told_also_when_that_is_over():
    known = explained(BY_HAND, TWO_READY, later=timedelta(hours=3))
    assert "may change at 2026-01-01T00:10:00Z (any moment now)" in known.as_text()
    assert "time alone changes nothing" in explained(MODEL, TWO_READY).as_text()


def test_metrics_with_their_targets():
    model = MODEL.measuring(in_flight_each("4"))
    known = explained(model, TWO_READY, load=in_flight(12, NOW), later=timedelta(seconds=2))
    breached = "  metric       Requests is 6, its target is 4: Breached since 2026-01-01T00:00:00Z, measured 2s ago\n"
    assert breached in known.as_text()
    unknown = "  metric       Requests is not known since 2026-01-01T00:00:00Z, its target is 4: "
    assert unknown in explained(model, TWO_READY).as_text()


def test_how_many_envoys_have_it():
    report = RouteReport(namespace="default", name="chat", connected=3, programmed=2, waiting=("envoy-2",))
    known = explained(MODEL, TWO_READY, envoys=report)
    assert "acknowledged this generation (2 of 3 Envoys, waiting for envoy-2)" in known.as_text()
    assert known.as_object()["envoys"]["programmed"] == 2


def test_where_requests_went_as_far_as_that_is_known():
    status = planned(BY_HAND, a_service("chat").port(80), TWO_READY).as_object()
    stored = BY_HAND.stored(status=status)
    known = explain(stored, NOW, traffic=SentRequests(local=69, remote=31, seconds=10.2))
    assert "  measured     31 of the last 100 requests (10 s, 31%) left; no request is known to have" in known.as_text()
    assert known.as_object()["traffic"] == {"local": 69, "remote": 31, "seconds": 10.2}
    quiet = explain(stored, NOW, traffic=SentRequests(0, 0, 0.0))
    assert "  measured     no request lately; no request is known" in quiet.as_text()
    assert "traffic" not in explain(stored, NOW).as_object()


def test_in_a_cluster_the_status_says_where_requests_went_and_a_command_what_it_does_not_say():
    status = planned(MODEL, a_service("chat").port(80), TWO_READY, traffic=SentRequests(69, 31, 10.0)).as_object()
    status["controller"] = "beamlit-system/beamlit-controller"
    known = explain(MODEL.stored(status=status), NOW + timedelta(seconds=12))
    assert "  measured     31 of the last 100 requests (10 s, 31%) left, counted 12s ago; " in known.as_text()
    traffic = {"local": 69, "remote": 31, "seconds": 10.0, "at": "2026-01-01T00:00:00Z"}
    assert known.as_object()["traffic"] == traffic
    pods = "kubectl -n beamlit-system get pods -l app.kubernetes.io/component"
    forward = f"kubectl -n beamlit-system port-forward $({pods}=xds-server -o name | head -1) 19000"
    assert f"  see envoys   {pods}=gateway\n" in known.as_text()
    wanted = """'beamlit_model_requests.*name="chat",namespace="default"'"""
    ask = f"curl -s 127.0.0.1:19000/metrics | grep {wanted}"
    assert f"  see requests {forward}\n  meanwhile    {ask}\n" in known.as_text()
    assert known.as_object()["more"] == {"envoys": f"{pods}=gateway", "forward": forward, "requests": ask}
    # What a `beamlit run` says itself needs no command.
    report = RouteReport(namespace="default", name="chat", connected=1, programmed=1)
    assert "more" not in explain(MODEL.stored(status=status), NOW, envoys=report).as_object()


def test_who_writes_a_status_writes_no_command():
    status = planned(MODEL, a_service("chat").port(80), TWO_READY).as_object()
    status["controller"] = "x; rm -rf ~ #/y"
    assert explain(MODEL.stored(status=status), NOW).more["envoys"].startswith("kubectl -n 'x; rm -rf ~ #' get pods")


def test_requests_that_leave_against_the_split_are_in_the_first_line():
    status = planned(MODEL, a_service("chat").port(80), TWO_READY).as_object()
    (offloading,) = [one for one in status["conditions"] if one["type"] == "Offloading"]
    offloading.update(status="True", reason="Overflow", message="31 of 100 requests had no room")
    known = explain(MODEL.stored(status=status), NOW)
    first, *_ = known.as_text().splitlines()
    assert first == "default/chat: every request stays local by the split, and some left by themselves lately"
    assert "  measured     31 of 100 requests had no room\n" in known.as_text()
    assert known.as_object()["offloading"]["reason"] == "Overflow"


UNLIMITED = BY_HAND.offloading()


@pytest.mark.parametrize(
    ("model", "traffic", "reason", "leave"),
    [
        (UNLIMITED, SentRequests(30, 70, 10.0), "ReplicasFail", True),
        (UNLIMITED, SentRequests(100, 0, 10.0), "RemoteNotUsed", False),
        (UNLIMITED, SentRequests(70, 30, 10.0), None, False),
        (BY_HAND, SentRequests(30, 70, 10.0), "Overflow", True),
    ],
)
def test_what_envoy_does_by_itself_is_told_beside_a_share_too_and_in_the_first_line_if_more_leave(
    model, traffic, reason, leave
):
    around = a_service("chat").port(80), TWO_READY
    status = planned(model, *around, status=planned(model, *around), traffic=traffic)
    assert (status.detour and status.detour.reason) == reason
    text = explain(model.stored(status=status.as_object()), NOW).as_text()
    assert ("left by themselves lately" in text.partition("\n")[0]) == leave
    if reason:
        assert f"left, counted 0s ago; {status.detour.message}\n" in text


def test_what_to_look_at():
    assert explained(MODEL, TWO_READY).attention == ()
    assert explained(MODEL, TWO_READY, generation=2).attention == (
        "the last edit is not decided on yet: it is generation 2, not 1",
    )
    assert explain(MODEL.stored(), NOW).attention == ("no controller has looked at this model yet",)
    (warning,) = explained(MODEL.overridden("remote=half"), TWO_READY).attention
    assert warning.startswith("Accepted is True, AcceptedWithWarnings: metadata.annotations")
    lost = explained(MODEL.fronting("nothing"), TWO_READY)
    assert lost.attention[0] == "the model is not served, so nothing is decided"
    assert any(words.startswith("ResolvedRefs is False, ServiceNotFound") for words in lost.attention)
    assert lost.as_text().startswith("default/chat: not served\n")


def test_a_status_of_an_older_controller_or_of_somebodys_hand_is_no_error():
    status = planned(MODEL, a_service("chat").port(80), TWO_READY).as_object()
    del status["verdicts"], status["split"]["returns"]
    known = explain(MODEL.stored(status=status), NOW)
    assert (known.winner, known.as_object()["rules"]) == (None, [])
    assert known.attention == (
        "a controller of an older version wrote this status: it does not say what each rule said",
    )
    broken = explain(MODEL.stored(status={"observedGeneration": "x", "verdicts": 7, "split": []}), NOW)
    assert broken.as_text().startswith("default/chat: not served\n")


def test_no_word_of_anybody_directs_the_terminal():
    known = explained(MODEL.annotated(**{"beamlit.com/paused": "\x1b]0;owned\x07"}), TWO_READY)
    assert "\x1b" not in known.as_text() and "\x07" not in known.as_text()
    assert known.as_text().count("\n") == len(known.as_text().splitlines())
