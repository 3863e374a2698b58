"""What is told of a write, once."""

from datetime import UTC, datetime

import pytest

from controller.api.contract.status import Condition, ModelDeploymentStatus, SplitStatus
from controller.plan.transitions import log_transitions, transitions
from tests.support.objects import a_model

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STORED = a_model().stored()
NOTHING = ModelDeploymentStatus()


GOOD = {
    "Accepted": "True Accepted",
    "ResolvedRefs": "True Resolved",
    "LocalHealthy": "True ReplicasReady",
    "RemoteHealthy": "True Answering",
    "FailingOver": "False AsDecided",
    "Ready": "True Ready",
}


def status(split: str = "100/0 Steady", *, memory: dict[str, str] | None = None, **conditions: str):
    """Give a status in which all is well but for these conditions, each as its status and its reason."""
    shares, reason = split.split()
    local, remote = map(int, shares.split("/"))
    said = {type_: words.split() for type_, words in {**GOOD, **conditions}.items()}
    words = "2 of 3 local replicas are ready"
    return ModelDeploymentStatus(
        conditions=tuple(
            Condition(type=type_, status=word, reason=why, message=f"{why} it is", observed_generation=1)
            for type_, (word, why) in said.items()
        ),
        split=SplitStatus(local=local, remote=remote, reason=reason, message=words, since=NOW),
        memory=memory or {},
    )


STARTS = status(Ready="False NotProgrammed")
UPDATING = status(Ready="False Updating")
REMOTE_GONE = "False NotConnected"
LOST = {"remoteLostAt": "2026-01-01T00:00:00Z"}
LOCAL_GONE = "False NoReadyReplica"
FULL = "True Overflow"


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (status(), status(), []),
        (NOTHING, STARTS, []),
        (status(), status(Fronted="False Pending"), []),
        (
            status(Fronted="False Pending"),
            status(Fronted="True TakenOver"),
            [("Normal", "TakenOver", "TakenOver it is")],
        ),
        (
            status(Fronted="True TakenOver"),
            status(Fronted="False GatewayNotReady"),
            [("Warning", "GatewayNotReady", "GatewayNotReady it is")],
        ),
        (
            status(Fronted="True TakenOver"),
            status(Fronted="False Disabled"),
            [("Normal", "Disabled", "Disabled it is")],
        ),
        *(
            (status(), status(Fronted=f"False {why}"), [("Warning", why, f"{why} it is")])
            for why in ("TakeoverContested", "TakeoverNotPermitted", "GatewayNotConnected", "NotFrontable")
        ),
        (STARTS, status(), [("Normal", "Ready", "split 100/0: 2 of 3 local replicas are ready")]),
        (
            status(),
            status("0/100 LocalDown"),
            [("Warning", "LocalDown", "split 100/0 -> 0/100: 2 of 3 local replicas are ready")],
        ),
        (
            status("0/100 LocalDown"),
            status("17/83 Recovering"),
            [("Normal", "Recovering", "split 0/100 -> 17/83: 2 of 3 local replicas are ready")],
        ),
        (status("17/83 Recovering"), status("34/66 Recovering"), []),
        (
            status("90/10 Override"),
            status("80/20 Override"),
            [("Normal", "Override", "split 90/10 -> 80/20: 2 of 3 local replicas are ready")],
        ),
        (status(), status("100/0 Disabled"), []),
        (
            status(),
            status(Ready="False NothingAnswers"),
            [("Warning", "NotReady", "NothingAnswers: NothingAnswers it is")],
        ),
        (status(), STARTS, [("Warning", "NotReady", "NotProgrammed: NotProgrammed it is")]),
        (
            NOTHING,
            status(Ready="False NotAccepted", Accepted="False Conflict"),
            [("Warning", "Conflict", "Conflict it is")],
        ),
        (
            status(),
            status(Ready="False NotAccepted", Accepted="False Invalid"),
            [("Warning", "Invalid", "Invalid it is")],
        ),
        # Health, whether or not traffic moves.
        (
            status(),
            status(RemoteHealthy=REMOTE_GONE),
            [("Warning", "RemoteNotHealthy", "NotConnected: NotConnected it is")],
        ),
        (
            status(RemoteHealthy=REMOTE_GONE),
            status(),
            [("Normal", "RemoteHealthy", "Answering: Answering it is")],
        ),
        (
            status(RemoteHealthy=REMOTE_GONE),
            status(RemoteHealthy="False TokenNotIssued"),
            [("Warning", "RemoteNotHealthy", "TokenNotIssued: TokenNotIssued it is")],
        ),
        (status(), status(LocalHealthy=LOCAL_GONE), [("Warning", "LocalNotHealthy", "NoReadyReplica it is")]),
        (status(LocalHealthy=LOCAL_GONE), status(), [("Normal", "LocalHealthy", "ReplicasReady it is")]),
        # One event for one cause.
        (
            status(),
            status("0/100 LocalDown", LocalHealthy=LOCAL_GONE),
            [("Warning", "LocalDown", "split 100/0 -> 0/100: 2 of 3 local replicas are ready")],
        ),
        (
            status("100/0 NoRemoteBackend"),
            status("100/0 NothingAnswers", LocalHealthy=LOCAL_GONE, Ready="False NothingAnswers"),
            [("Warning", "NotReady", "NothingAnswers: NothingAnswers it is")],
        ),
        # What health a new model has is no change of it; nor is what is found out first.
        (NOTHING, status("0/100 LocalDown", LocalHealthy=LOCAL_GONE, Ready="False NotProgrammed"), []),
        (status(RemoteHealthy="Unknown NotMeasured"), status(), []),
        # That a remote backend answers again is the last word on it, whatever was not known in between.
        (status(RemoteHealthy=REMOTE_GONE), status(RemoteHealthy="Unknown NotMeasured", memory=LOST), []),
        (
            status(RemoteHealthy="Unknown NotMeasured", memory=LOST),
            status(),
            [("Normal", "RemoteHealthy", "Answering: Answering it is")],
        ),
        (
            status(RemoteHealthy="Unknown NotMeasured"),
            status(RemoteHealthy=REMOTE_GONE),
            [("Warning", "RemoteNotHealthy", "NotConnected: NotConnected it is")],
        ),
        (
            status(RemoteHealthy="Unknown NotMeasured", Ready="False NotProgrammed"),
            status("100/0 RemoteDown", RemoteHealthy=REMOTE_GONE),
            [
                ("Normal", "Ready", "split 100/0: 2 of 3 local replicas are ready"),
                ("Warning", "RemoteNotHealthy", "NotConnected: NotConnected it is"),
            ],
        ),
        # What the spec refers to.
        (
            NOTHING,
            status(ResolvedRefs="False SecretNotFound", Ready="False UnresolvedRefs"),
            [("Warning", "SecretNotFound", "SecretNotFound it is")],
        ),
        (
            status(ResolvedRefs="False SecretNotFound", Ready="False UnresolvedRefs"),
            status(ResolvedRefs="False SecretKeyNotFound", Ready="False UnresolvedRefs"),
            [("Warning", "SecretKeyNotFound", "SecretKeyNotFound it is")],
        ),
        (
            status(ResolvedRefs="False SecretNotFound"),
            status(),
            [("Normal", "Resolved", "everything that the spec refers to was found")],
        ),
        # An edit that goes well, and one that does not.
        (status(), UPDATING, []),
        (UPDATING, status(), []),
        (UPDATING, STARTS, [("Warning", "NotReady", "NotProgrammed: NotProgrammed it is")]),
        # Requests that go elsewhere than the split says.
        (
            status(),
            status(FailingOver="True ReplicasFail"),
            [("Warning", "ReplicasFail", "ReplicasFail it is")],
        ),
        (status(FailingOver="True ReplicasFail"), status(FailingOver="True ReplicasFail"), []),
        (
            status(FailingOver="True ReplicasFail"),
            status(FailingOver="True ReplicasNotUsed"),
            [("Warning", "ReplicasNotUsed", "ReplicasNotUsed it is")],
        ),
        (
            status(FailingOver="True ReplicasFail"),
            status(),
            [("Normal", "AsDecided", "split 100/0: requests go where it sends them again")],
        ),
        # The excess of a limit leaves, and does no longer; what is told anyway, of another split too, is told once.
        (status(), status(Offloading=FULL), [("Normal", "Overflow", "Overflow it is")]),
        (status(Offloading=FULL), status(Offloading=FULL), []),
        (
            status(Offloading=FULL),
            status(Offloading="False Steady"),
            [("Normal", "AsDecided", "split 100/0: requests go where it sends them again")],
        ),
        (
            status(Offloading=FULL),
            status("50/50 Overloaded", Offloading="True Overloaded"),
            [("Normal", "Overloaded", "split 100/0 -> 50/50: 2 of 3 local replicas are ready")],
        ),
        (
            status(Offloading=FULL),
            status(Offloading="True Failover", FailingOver="True ReplicasNotUsed"),
            [("Warning", "ReplicasNotUsed", "ReplicasNotUsed it is")],
        ),
        (
            status(Offloading="True Failover", FailingOver="True ReplicasNotUsed"),
            status(Offloading=FULL),
            [("Normal", "Overflow", "Overflow it is")],
        ),
    ],
)
def test_events(before, after, told):
    events = transitions(STORED, before, after, NOW)
    assert [(event.type, event.reason, event.message) for event in events] == told
    assert all((event.object, event.uid, event.at) == (STORED.ref, "uid-of-a", NOW) for event in events)


def shadowing(would_be: str):
    known = status("100/0 Shadow")
    assert known.split
    return known.model_copy(update={"split": known.split.model_copy(update={"would_be": would_be})})


def test_what_would_be_in_shadow_is_an_event_when_its_rule_changes():
    def told(before, after):
        return [(one.type, one.reason, one.message) for one in transitions(STORED, before, after, NOW)]

    words = "2 of 3 local replicas are ready"
    steady, away = shadowing("100/0 Steady"), shadowing("50/50 Overloaded")
    assert told(status(), steady) == []
    assert told(steady, away) == [("Normal", "Shadow", f"split 100/0: {words}")]
    assert told(status("50/50 Overloaded"), away) == [("Normal", "Shadow", f"split 50/50 -> 100/0: {words}")]
    assert told(shadowing("33/67 Recovering"), shadowing("67/33 Recovering")) == []
    assert told(away, steady) == [("Normal", "Shadow", f"split 100/0: {words}")]


@pytest.mark.parametrize(
    ("before", "after", "logged"),
    [
        (status(), status(), []),
        (status(), status(RemoteHealthy=REMOTE_GONE), ["remote health"]),
        (status(RemoteHealthy=REMOTE_GONE), status(), ["remote health"]),
        (status(), status("0/100 LocalDown", LocalHealthy=LOCAL_GONE), ["split changed", "local health"]),
        (status(LocalHealthy=LOCAL_GONE), status(), ["local health"]),
        (status(), status(FailingOver="True ReplicasFail"), ["requests fail over"]),
        (status(), status(Offloading=FULL), ["requests overflow"]),
        (status(Offloading=FULL), status(Offloading="False Steady"), ["requests overflow"]),
        (status(), status(SignalsAvailable="Unknown NotPermitted"), []),
        (status(), status(SignalsAvailable="False NotPermitted"), ["metrics cannot be read"]),
        (status(SignalsAvailable="False NotPermitted"), status(SignalsAvailable="False NotAnswering"), []),
        (
            status(SignalsAvailable="False NotPermitted"),
            status(SignalsAvailable="True Measured"),
            ["metrics can be read again"],
        ),
    ],
)
def test_every_change_of_health_is_logged_also_while_nothing_leaves(before, after, logged, caplog):
    caplog.set_level("INFO")
    log_transitions(STORED, before, after)
    assert [one.getMessage() for one in caplog.records] == logged
    assert all((one.model, one.because) for one in caplog.records)
