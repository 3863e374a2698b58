"""What is told of a write, once."""

from datetime import UTC, datetime

import pytest

from controller.api.contract.status import Condition, ModelDeploymentStatus, SplitStatus
from controller.plan.transitions import transitions
from tests.support.objects import a_model

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STORED = a_model().stored()
NOTHING = ModelDeploymentStatus()


def status(split: str = "100/0 Steady", ready: str = "True Ready", accepted: str = "True Accepted"):
    shares, reason = split.split()
    local, remote = map(int, shares.split("/"))
    conditions = [
        Condition(type=type_, status=word, reason=why, message=f"{why} it is", observed_generation=1)
        for type_, (word, why) in {"Accepted": accepted.split(), "Ready": ready.split()}.items()
    ]
    words = "2 of 3 local replicas are ready"
    return ModelDeploymentStatus(
        conditions=tuple(conditions),
        split=SplitStatus(local=local, remote=remote, reason=reason, message=words, since=NOW),
    )


STARTS = status(ready="False NotProgrammed")


@pytest.mark.parametrize(
    ("before", "after", "told"),
    [
        (status(), status(), []),
        (NOTHING, STARTS, []),
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
            status(ready="False NothingAnswers"),
            [("Warning", "NotReady", "NothingAnswers: NothingAnswers it is")],
        ),
        (status(), STARTS, [("Warning", "NotReady", "NotProgrammed: NotProgrammed it is")]),
        (
            NOTHING,
            status(ready="False NotAccepted", accepted="False Conflict"),
            [("Warning", "Conflict", "Conflict it is")],
        ),
        (
            status(),
            status(ready="False NotAccepted", accepted="False Invalid"),
            [("Warning", "Invalid", "Invalid it is")],
        ),
    ],
)
def test_events(before, after, told):
    events = transitions(STORED, before, after, NOW)
    assert [(event.type, event.reason, event.message) for event in events] == told
    assert all((event.object, event.uid, event.at) == (STORED.ref, "uid-of-a", NOW) for event in events)
