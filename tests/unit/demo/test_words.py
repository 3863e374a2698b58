"""What the demo reads from answers: decisions from the status, the server from the body."""

import json

import pytest

from benchmarks.load import Answer, TracedRequest
from demo.model_server import generation_time
from demo.play import body_for, fault_of
from demo.product import Decision, decision_of

SPLIT = {"local": 17, "remote": 83, "reason": "Recovering", "message": "17 % now", "since": "2026-01-01T00:00:00Z"}


def model(name: str, **status: object) -> dict[str, object]:
    return {"metadata": {"name": name, "namespace": "default"}, "status": status}


def answer(body: bytes, route: str = "local") -> Answer:
    return Answer(200, {"x-beamlit-route": route} if route else {}, body)


def test_a_decision_is_the_split_of_the_model():
    decision = decision_of({"items": [model("other"), model("chat", split=SPLIT)], "problems": []})
    assert decision == Decision(17, 83, "Recovering", "17 % now")
    assert str(decision) == "17/83 Recovering"


@pytest.mark.parametrize("items", [[], [model("chat")], [{"metadata": {"name": "chat"}}], [model("x", split=SPLIT)]])
def test_there_may_be_no_decision_yet(items):
    assert decision_of({"items": items}) is None


def test_the_right_server_answered():
    assert fault_of(answer(b'{"servedBy": "local-2"}')) == ""
    assert fault_of(answer(b'{"servedBy": "remote"}', "remote")) == ""


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"{}", b"1"])
def test_any_other_body_is_wrong(body):
    assert fault_of(answer(body)) == "wrong body"


@pytest.mark.parametrize("route", ["local", ""])
def test_a_route_header_that_lies_is_a_fault(route):
    assert "but remote answered" in fault_of(answer(b'{"servedBy": "remote"}', route))


def test_a_request_has_its_traced_size():
    sent = json.loads(body_for(TracedRequest(0.0, 4808, 10)))
    assert (len(sent["prompt"]), sent["max_tokens"]) == (4808, 10)


def test_generation_takes_longer_for_more_tokens_within_bounds():
    assert generation_time(0) == generation_time(-5) < generation_time(50) < generation_time(10_000) <= 0.1
