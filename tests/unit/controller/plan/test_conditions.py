"""What each condition says, and when it last changed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from controller.api.contract.health import RemoteHealth, unknown
from controller.api.contract.status import Condition, with_transitions
from controller.decision import Facts, LocalFacts, Reason, RemoteFacts
from controller.frontend.claims import Refusal
from controller.intent.intent import Terms
from controller.observe.proxies import Programmed
from controller.observe.references import Fault
from controller.plan.conditions import Findings, conditions_for
from tests.support.decisions import a_decision

NOW = datetime(2026, 1, 1, tzinfo=UTC)
WAITING = "not every connected Envoy has acknowledged this generation yet"
NO_ENVOY = "no Envoy is connected; one without the node token of the xDS server does not count"
NO_PROXIES = Programmed(connected=0, programmed=0)


def remotes(healthy, message="", reason=""):
    """One remote backend of this health."""
    return (RemoteFacts("remote", RemoteHealth(healthy=healthy, message=message, reason=reason)),)


GOOD = Findings(
    generation=3,
    warnings=(),
    refusal=None,
    faults=(),
    terms=Terms(enabled=True),
    facts=Facts(LocalFacts(2, 3), remotes(True)),
    decision=a_decision(0, Reason.STEADY, "all local"),
    programmed=Programmed(connected=2, programmed=2),
    programmed_before=None,
)
PROGRAMMED = Condition(type="Programmed", status="True", reason="Programmed", message="said", observed_generation=3)
UNTOLD = PROGRAMMED.model_copy(update={"status": "Unknown", "reason": "NotReported"})
PENDING = PROGRAMMED.model_copy(update={"status": "False", "reason": "Pending"})
LACKING = Fault("SecretNotFound", "Secret default/x does not exist", of_remote=True)
LEADS_INSIDE = Fault("HostRefused", "models.example leads to an address that is refused", of_remote=True)
READY = PROGRAMMED.model_copy(update={"type": "Ready", "reason": "Ready"})
EDITED = READY.model_copy(update={"status": "False", "reason": "Updating"})
DOWN = Facts(LocalFacts(0, 3), (RemoteFacts("remote", unknown("never measured")),))
REFUSED = Facts(LocalFacts(1, 1), remotes(False, "no token is issued: 401", "TokenNotIssued"))


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
            {"faults": (Fault("NoService", "no Service"), Fault("NoRemoteBackend", "no remote"))},
            ("False", "NoService", "no Service; no remote"),
        ),
        ("Programmed", {}, ("True", "Programmed", "every connected Envoy has acknowledged this generation")),
        ("Programmed", {"programmed": NO_PROXIES}, ("False", "NoProxies", NO_ENVOY)),
        (
            "Programmed",
            {"programmed": Programmed(0, 0, refused="the client at 10.0.0.7 is no Envoy of ours: why")},
            ("False", "NoProxies", f"{NO_ENVOY}: the client at 10.0.0.7 is no Envoy of ours: why"),
        ),
        (
            "Programmed",
            {"programmed": Programmed(2, 1)},
            ("False", "Pending", "not every connected Envoy has acknowledged this generation yet"),
        ),
        (
            "Programmed",
            {"programmed": Programmed(2, 0), "programmed_before": PROGRAMMED},
            ("True", "Programmed", "every connected Envoy has acknowledged this generation"),
        ),
        (
            "Programmed",
            {"programmed": Programmed(2, 1, ("n1 refuses CDS x: bad",)), "programmed_before": PROGRAMMED},
            ("False", "Refused", "n1 refuses CDS x: bad"),
        ),
        (
            "Programmed",
            {"programmed": None},
            ("Unknown", "NotReported", "no xDS server has told yet what the Envoys acknowledged"),
        ),
        (
            "Programmed",
            {"programmed": None, "silence": "the xDS server 10.0.0.9:19000 cannot be reached: Connection refused"},
            (
                "Unknown",
                "NotReported",
                "no xDS server has told yet what the Envoys acknowledged: the xDS server 10.0.0.9:19000 cannot be "
                "reached: Connection refused",
            ),
        ),
        (
            "Programmed",
            {"programmed": Programmed(3, 1, waiting=("gateway-1", "gateway-2"))},
            ("False", "Pending", f"{WAITING}: waiting for gateway-1, gateway-2"),
        ),
        ("Programmed", {"programmed": None, "programmed_before": PROGRAMMED}, ("True", "Programmed", "said")),
        ("Programmed", {"programmed": None, "programmed_before": PENDING}, ("False", "Pending", "said")),
        (
            "Programmed",
            {"programmed": None, "programmed_before": UNTOLD, "silence": "nobody answers"},
            ("Unknown", "NotReported", "no xDS server has told yet what the Envoys acknowledged: nobody answers"),
        ),
        (
            "Programmed",
            {"programmed": Programmed(2, 1), "programmed_before": PENDING},
            ("False", "Pending", "not every connected Envoy has acknowledged this generation yet"),
        ),
        ("Programmed", {"decision": None}, ("False", "NotServed", "there is no route to serve")),
        ("LocalHealthy", {}, ("True", "ReplicasReady", "2 of 3 replicas are ready")),
        ("LocalHealthy", {"facts": DOWN}, ("False", "NoReadyReplica", "0 of 3 replicas are ready")),
        ("RemoteHealthy", {}, ("True", "Answering", "")),
        ("RemoteHealthy", {"facts": DOWN}, ("Unknown", "NotMeasured", "never measured")),
        (
            "RemoteHealthy",
            {"facts": Facts(LocalFacts(1, 1), remotes(False, "timeout"))},
            ("False", "NotAnswering", "timeout"),
        ),
        (
            "RemoteHealthy",
            {"facts": Facts(LocalFacts(1, 1), no_remote="refused"), "faults": (LEADS_INSIDE,)},
            ("False", "HostRefused", "models.example leads to an address that is refused"),
        ),
        ("RemoteHealthy", {"facts": REFUSED}, ("False", "TokenNotIssued", "no token is issued: 401")),
        (
            "RemoteHealthy",
            {"facts": Facts(LocalFacts(2, 3), no_remote="none")},
            ("Unknown", "NoRemote", "nothing may leave: none"),
        ),
        (
            "RemoteHealthy",
            {"terms": Terms(enabled=False)},
            ("Unknown", "NoRemote", "nothing may leave: spec.enabled is false"),
        ),
        ("Offloading", {}, ("False", "Steady", "all local")),
        (
            "Offloading",
            {"decision": a_decision(30, Reason.OVERRIDE, "by hand")},
            ("True", "Override", "by hand"),
        ),
        ("Offloading", {"decision": None}, ("Unknown", "NotServed", "there is nothing to decide on")),
        ("Paused", {}, ("False", "NotPaused", "")),
        (
            "Paused",
            {"terms": Terms(enabled=True, paused=True)},
            ("True", "Paused", "the split is held"),
        ),
        ("Ready", {}, ("True", "Ready", "")),
        ("Ready", {"facts": DOWN}, ("True", "Ready", "")),
        ("Ready", {"refusal": Refusal("Conflict", "port 80 is b's")}, ("False", "NotAccepted", "port 80 is b's")),
        (
            "Ready",
            {"programmed": None},
            ("Unknown", "NotProgrammed", "no xDS server has told yet what the Envoys acknowledged"),
        ),
        ("Ready", {"programmed": NO_PROXIES}, ("False", "NotProgrammed", NO_ENVOY)),
        ("Ready", {"programmed": Programmed(2, 1)}, ("False", "NotProgrammed", WAITING)),
        (
            "Ready",
            {"programmed": Programmed(2, 1), "ready_before": READY},
            ("False", "Updating", f"an edit is on its way: {WAITING}"),
        ),
        (
            "Ready",
            {"programmed": Programmed(2, 1), "ready_before": EDITED, "edit_is_late": True},
            ("False", "NotProgrammed", WAITING),
        ),
        (
            "Ready",
            {"programmed": NO_PROXIES, "ready_before": READY},
            ("False", "NotProgrammed", NO_ENVOY),
        ),
        (
            "Ready",
            {
                "faults": (Fault("ServiceNotFound", "no such Service"),),
                "decision": None,
                "programmed": NO_PROXIES,
            },
            ("False", "UnresolvedRefs", "no such Service"),
        ),
        (
            "Ready",
            {"facts": Facts(LocalFacts(0, 3), no_remote="Secret default/x does not exist"), "faults": (LACKING,)},
            (
                "False",
                "NothingAnswers",
                "no local replica is ready, and nothing may leave: Secret default/x does not exist",
            ),
        ),
        # What still answers while it terminates is the last choice, and one.
        (
            "Ready",
            {"facts": Facts(LocalFacts(0, 3, leaving=1), no_remote="none"), "faults": (LACKING,)},
            ("False", "UnresolvedRefs", "Secret default/x does not exist"),
        ),
        ("Ready", {"facts": Facts(LocalFacts(0, 3, leaving=1), remotes(False))}, ("True", "Ready", "")),
        (
            "Ready",
            {"facts": Facts(LocalFacts(1, 3), no_remote="Secret default/x does not exist"), "faults": (LACKING,)},
            ("False", "UnresolvedRefs", "Secret default/x does not exist"),
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
            {"facts": DOWN, "terms": Terms(enabled=False)},
            ("False", "NothingAnswers", "no local replica is ready, and nothing may leave: spec.enabled is false"),
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
        "FailingOver",
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
    (same,) = with_transitions([a_condition("False")], [third], later + timedelta(minutes=1))
    assert same == third
    (set_back,) = with_transitions([a_condition("False")], [third], NOW)
    assert set_back.last_transition_time == NOW
    (of_an_edit,) = with_transitions(
        [a_condition("False").model_copy(update={"observed_generation": 9})], [third], later
    )
    assert of_an_edit == third.model_copy(update={"observed_generation": 9})
