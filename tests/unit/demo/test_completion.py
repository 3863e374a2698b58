"""A streamed answer is whole, or it is a failure."""

import json

import pytest

from demo.completion import (
    fault_of,
    generation_time,
    last_event,
    length_of,
    request_body,
    time_of_token,
    token_events,
    tokens_asked_for,
)
from tests.support.load import Answer, TracedRequest


def events(server: str = "local-2", name: str = "seven", tokens: int = 3) -> list[bytes]:
    return [*token_events(server, name, tokens), last_event(server, name, tokens)]


def fault(body: bytes, route: str = "local") -> str:
    return fault_of(Answer(200, {"x-beamlit-route": route} if route else {}, body))


def test_a_whole_answer_of_the_right_server():
    assert fault(b"".join(events())) == ""
    assert fault(b"".join(events("remote")), "remote") == ""


def test_its_chunks_are_those_of_openai():
    first, *_, last = events()
    chunk = json.loads(first.removeprefix(b"data: "))
    assert chunk["id"] == "chatcmpl-seven"
    assert (chunk["object"], chunk["choices"][0]["delta"]) == ("chat.completion.chunk", {"content": "0 "})
    assert chunk["choices"][0]["finish_reason"] is None
    assert '"finish_reason":"length"' in last.decode()
    assert last.endswith(b"\n\ndata: [DONE]\n\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda sent: sent[:-1], "no [DONE] at the end"),
        (lambda sent: [*sent[:-1], sent[-1].replace(b"data: [DONE]\n\n", b"")], "no [DONE] at the end"),
        (lambda sent: [sent[0], *sent[2:]], "chunks that are missing or out of order"),
        (lambda sent: [sent[1], sent[0], *sent[2:]], "chunks that are missing or out of order"),
        (lambda sent: [sent[0], sent[0], *sent[1:]], "chunks that are missing or out of order"),
        (lambda sent: [*events(name="eight")[:1], *sent[1:]], "chunks of several answers"),
        (lambda sent: [sent[0][:-9], *sent[1:]], "not the chunks of a completion"),
        (lambda sent: [b"data: [DONE]\n\n"], "not the chunks of a completion"),
    ],
)
def test_anything_else_is_a_fault(change, words):
    assert fault(b"".join(change(events()))) == words


@pytest.mark.parametrize("route", ["local", ""])
def test_a_route_header_that_lies_is_a_fault(route):
    assert "but remote answered" in fault(b"".join(events("remote")), route)


def test_a_request_has_its_traced_size():
    body = request_body(TracedRequest(0.0, 4808, 10))
    assert len(json.loads(body)["messages"][0]["content"]) == 4808
    assert tokens_asked_for(body) == 10


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"stream": true}', b'{"stream": false, "max_tokens": 1}'])
def test_a_server_refuses_what_is_no_request_for_a_stream(body):
    with pytest.raises(ValueError):
        tokens_asked_for(body)


def test_an_answer_has_at_least_a_token_and_ends_within_bounds():
    assert length_of(-5) == length_of(0) == 1
    assert generation_time(0) == time_of_token(0) < generation_time(50) < generation_time(10_000) <= 5.0
