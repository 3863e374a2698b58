"""What the demo reads from the status."""

import pytest

from demo.product import Decision, decision_of

SPLIT = {"local": 17, "remote": 83, "reason": "Recovering", "message": "17 % now", "since": "2026-01-01T00:00:00Z"}


def model(name: str, **status: object) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "default"}, "status": status}


def test_a_decision_is_the_split_of_the_model():
    decision = decision_of({"items": [model("other"), model("chat", split=SPLIT)], "problems": []})
    assert decision is not None
    assert (decision, decision.message) == (Decision(17, 83, "Recovering", ""), "17 % now")
    assert str(decision) == "17/83 Recovering"


def test_other_numbers_in_the_sentence_are_no_other_decision():
    """Each second has others while requests leave by themselves."""
    said = (
        decision_of({"items": [model("chat", split={**SPLIT, "message": words})]}) for words in ("1 of 9", "2 of 9")
    )
    assert len(set(said)) == 1


def test_requests_that_leave_by_themselves_are_the_reason():
    """A newcomer sees how many leave beside it: 100/0 alone would contradict that."""
    steady = {**SPLIT, "local": 100, "remote": 0, "reason": "Steady"}
    decision = decision_of({"items": [model("chat", split=steady, reason="Overflow")]})
    assert str(decision) == "100/0 Overflow"


@pytest.mark.parametrize("items", [[], [model("chat")], [{"metadata": {"name": "chat"}}], [model("x", split=SPLIT)]])
def test_there_may_be_no_decision_yet(items):
    assert decision_of({"items": items}) is None
