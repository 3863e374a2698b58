"""What each condition says, and when it last changed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.api.contract.route import Remote, Split
from controller.api.contract.status import Condition, with_transitions
from controller.decision import Decision, Facts, Known, LocalFacts, Reason, RemoteFacts, Terms, Unknown
from controller.frontend.claims import Refusal
from controller.observe.proxies import NO_PROXIES, ProxyReport
from controller.observe.references import Fault, Resolved
from controller.plan.conditions import Observation, conditions_for

NOW = datetime(2026, 1, 1, tzinfo=UTC)
REMOTE = Remote(host="r", port=80, authority="r")
GOOD = Observation(
    generation=3,
    warnings=(),
    refusal=None,
    resolved=Resolved(None, REMOTE, ()),
    terms=Terms(enabled=True, offloading=True),
    facts=Facts(LocalFacts(2, 3), Known(RemoteFacts(healthy=True), NOW)),
    decision=Decision(Split.away(0), Reason.STEADY, "all local", "", ()),
    proxies=ProxyReport(connected=2, programmed=2),
    programmed_before=None,
)
PROGRAMMED = Condition(type="Programmed", status="True", reason="Programmed", message="said", observed_generation=3)
PENDING = PROGRAMMED.model_copy(update={"status": "False", "reason": "Pending"})
NO_REMOTE = Resolved(None, None, ())
DOWN = Facts(LocalFacts(0, 3), Unknown("never measured"))

REFUSED = Facts(
    LocalFacts(1, 1), Known(RemoteFacts(healthy=False, detail="no token is issued: 401", reason="TokenNotIssued"), NOW)
)


def said(observation, type_):
    (found,) = (one for one in conditions_for(observation) if one.type == type_)
    return found.status, found.reason, found.message


@pytest.mark.parametrize(
    ("type_", "changes", "expected"),
    [
        ("Accepted", {}, ("True", "Accepted", "")),
        ("Accepted", {"warnings": ("x: y", "z")}, ("True", "AcceptedWithWarnings", "x: y; z")),
        ("Accepted", {"refusal": Refusal("Conflict", "port 80 is b's")}, ("False", "Conflict", "port 80 is b's")),
        ("ResolvedRefs", {}, ("True", "Resolved", "")),
        (
            "ResolvedRefs",
            {
                "resolved": Resolved(
                    None, None, (Fault("NoService", "no Service"), Fault("NoRemoteBackend", "no remote"))
                )
            },
            ("False", "NoService", "no Service; no remote"),
        ),
        ("Programmed", {}, ("True", "Programmed", "every connected Envoy has acknowledged this generation")),
        ("Programmed", {"proxies": NO_PROXIES}, ("False", "NoProxies", "no Envoy is connected")),
        (
            "Programmed",
            {"proxies": ProxyReport(2, 1)},
            ("False", "Pending", "not every connected Envoy has acknowledged this generation yet"),
        ),
        (
            "Programmed",
            {"proxies": ProxyReport(2, 0), "programmed_before": PROGRAMMED},
            ("True", "Programmed", "every connected Envoy has acknowledged this generation"),
        ),
        (
            "Programmed",
            {"proxies": ProxyReport(2, 1, ("n1 refuses CDS x: bad",)), "programmed_before": PROGRAMMED},
            ("False", "Refused", "n1 refuses CDS x: bad"),
        ),
        (
            "Programmed",
            {"proxies": None},
            ("Unknown", "NotReported", "no xDS server has told yet what the Envoys acknowledged"),
        ),
        ("Programmed", {"proxies": None, "programmed_before": PROGRAMMED}, ("True", "Programmed", "said")),
        ("Programmed", {"proxies": None, "programmed_before": PENDING}, ("False", "Pending", "said")),
        (
            "Programmed",
            {"proxies": ProxyReport(2, 1), "programmed_before": PENDING},
            ("False", "Pending", "not every connected Envoy has acknowledged this generation yet"),
        ),
        ("Programmed", {"decision": None}, ("False", "NotServed", "there is no route to serve")),
        ("LocalHealthy", {}, ("True", "ReplicasReady", "2 of 3 replicas are ready")),
        ("LocalHealthy", {"facts": DOWN}, ("False", "NoReadyReplica", "0 of 3 replicas are ready")),
        ("RemoteHealthy", {}, ("True", "Answering", "")),
        ("RemoteHealthy", {"facts": DOWN}, ("Unknown", "NotMeasured", "never measured")),
        (
            "RemoteHealthy",
            {"facts": Facts(LocalFacts(1, 1), Known(RemoteFacts(healthy=False, detail="timeout"), NOW))},
            ("False", "NotAnswering", "timeout"),
        ),
        ("RemoteHealthy", {"facts": REFUSED}, ("False", "TokenNotIssued", "no token is issued: 401")),
        ("RemoteHealthy", {"resolved": NO_REMOTE}, ("Unknown", "NoRemote", "nothing may leave")),
        (
            "RemoteHealthy",
            {"terms": Terms(enabled=False, offloading=True)},
            ("Unknown", "NoRemote", "nothing may leave"),
        ),
        ("Offloading", {}, ("False", "Steady", "all local")),
        (
            "Offloading",
            {"decision": Decision(Split.away(30), Reason.OVERRIDE, "by hand", "", ())},
            ("True", "Override", "by hand"),
        ),
        ("Offloading", {"decision": None}, ("Unknown", "NotServed", "there is nothing to decide on")),
        ("Paused", {}, ("False", "NotPaused", "")),
        (
            "Paused",
            {"terms": Terms(enabled=True, offloading=True, paused=True)},
            ("True", "Paused", "the split is held"),
        ),
        ("Ready", {}, ("True", "Ready", "")),
        ("Ready", {"facts": DOWN}, ("True", "Ready", "")),
        ("Ready", {"refusal": Refusal("Conflict", "port 80 is b's")}, ("False", "NotAccepted", "port 80 is b's")),
        (
            "Ready",
            {"proxies": None},
            ("Unknown", "NotProgrammed", "no xDS server has told yet what the Envoys acknowledged"),
        ),
        ("Ready", {"proxies": NO_PROXIES}, ("False", "NotProgrammed", "no Envoy is connected")),
        (
            "Ready",
            {
                "resolved": Resolved(None, REMOTE, (Fault("ServiceNotFound", "no such Service"),)),
                "decision": None,
                "proxies": NO_PROXIES,
            },
            ("False", "UnresolvedRefs", "no such Service"),
        ),
        (
            "Ready",
            {"facts": DOWN, "resolved": NO_REMOTE},
            ("False", "NothingAnswers", "no local replica is ready, and there is no remote backend to go to"),
        ),
        (
            "Ready",
            {"facts": replace(REFUSED, local=LocalFacts(0, 3))},
            (
                "False",
                "NothingAnswers",
                "no local replica is ready, and the remote backend does not answer: no token is issued: 401",
            ),
        ),
        ("Ready", {"facts": REFUSED}, ("True", "Ready", "")),
        (
            "Ready",
            {"facts": DOWN, "terms": Terms(enabled=False, offloading=True)},
            ("False", "NothingAnswers", "no local replica is ready, and there is no remote backend to go to"),
        ),
    ],
)
def test_a_condition(type_, changes, expected):
    assert said(replace(GOOD, **changes), type_) == expected


def test_each_condition_is_there_once_and_names_the_generation():
    conditions = conditions_for(GOOD)
    assert [one.type for one in conditions] == [
        "Accepted",
        "ResolvedRefs",
        "Programmed",
        "LocalHealthy",
        "RemoteHealthy",
        "Offloading",
        "Paused",
        "Ready",
    ]
    assert {one.observed_generation for one in conditions} == {3}


def a_condition(status, message=""):
    return Condition(type="Ready", status=status, reason="R", message=message, observed_generation=1)


def test_a_transition_is_a_change_of_the_status_not_of_the_words():
    (first,) = with_transitions([a_condition("True")], (), NOW)
    assert first.last_transition_time == NOW
    later = NOW + timedelta(minutes=1)
    (second,) = with_transitions([a_condition("True", "other words")], [first], later)
    assert second.last_transition_time == NOW
    (third,) = with_transitions([a_condition("False")], [second], later)
    assert third.last_transition_time == later
