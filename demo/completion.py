"""A streamed chat completion: how long it takes, its bytes, and whether the bytes that came are all of them. Pure.

The form is OpenAI's (API reference, "Chat completions", streaming): server-sent events, each with one
`chat.completion.chunk`, the last with the reason of the end and the usage, and `data: [DONE]` behind them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tests.support.load import Answer, TracedRequest

PATH = "/v1/chat/completions"
ANSWER_HEADER = "x-answer"
"""What a server calls an answer, in its journal too: all that a client needs to know of one that broke off."""
_MODEL = "chat"
_FIRST_TOKEN = 0.050
"""Seconds."""
_PER_TOKEN = 0.010
"""Seconds."""
_LONGEST = 300
"""Tokens. One answer in a hundred of the trace is longer; it would outlast the demo."""
_DONE = b"data: [DONE]\n\n"


def length_of(tokens: int) -> int:
    """Return how many tokens an answer has of which so many were asked for."""
    return min(max(tokens, 1), _LONGEST)


def time_of_token(number: int) -> float:
    """Return when a server has the token of that number (the first is 0), in seconds from its taking up the request."""
    return _FIRST_TOKEN + _PER_TOKEN * number


def generation_time(tokens: int) -> float:
    """Return how long a server works on an answer of which so many tokens were asked for, in seconds."""
    return time_of_token(length_of(tokens) - 1)


def request_body(request: TracedRequest) -> bytes:
    """Return a request of the traced size: a character per token of the prompt."""
    message = {"role": "user", "content": "x" * request.context_tokens}
    return json.dumps(
        {"model": _MODEL, "stream": True, "max_tokens": request.generated_tokens, "messages": [message]}
    ).encode()


def tokens_asked_for(body: bytes) -> int:
    """Read how long the answer shall be. Raises ValueError when the body is no request for a stream."""
    try:
        asked = json.loads(body)
        if asked["stream"] is not True:
            raise ValueError("stream must be true")
        return int(asked["max_tokens"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"not a request for a completion: {error!r}") from error


def token_events(server: str, name: str, tokens: int) -> Iterator[bytes]:
    """Yield the event of each token of an answer of a server; `last_event` comes after them."""
    for token in range(tokens):
        yield _event(server, name, {"delta": {"content": f"{token} "}, "finish_reason": None}, {})


def last_event(server: str, name: str, tokens: int) -> bytes:
    """Return the end of an answer: why it ended, how long it was, and that nothing follows."""
    usage = {"usage": {"completion_tokens": tokens}}
    return _event(server, name, {"delta": {}, "finish_reason": "length"}, usage) + _DONE


def name_of(answer: Answer) -> str:
    """Return what its server calls an answer, of which no more than the head need have come."""
    return answer.headers.get(ANSWER_HEADER, "")


def fault_of(answer: Answer) -> str:
    """Return what is wrong with a streamed answer: it is not whole, or not from where its header says."""
    if not answer.body.endswith(_DONE):
        return "no [DONE] at the end"
    try:
        chunks = [json.loads(event[len(b"data: ") :]) for event in answer.body[: -len(_DONE)].split(b"\n\n")[:-1]]
        *tokens, last = chunks
        came = [chunk["choices"][0]["delta"]["content"] for chunk in tokens]
        sent = [f"{number} " for number in range(last["usage"]["completion_tokens"])]
        server = str(last["system_fingerprint"])
    except (ValueError, LookupError, TypeError):
        return "not the chunks of a completion"
    if came != sent:
        return "chunks that are missing or out of order"
    if len({chunk["id"] for chunk in chunks}) > 1:
        return "chunks of several answers"
    side = server.partition("-")[0]
    return "" if side == answer.route else f"x-beamlit-route is {answer.route or 'absent'} but {side} answered"


def _event(server: str, name: str, choice: Mapping[str, Any], more: Mapping[str, Any]) -> bytes:
    chunk = {
        "id": f"chatcmpl-{name}",
        "object": "chat.completion.chunk",
        "model": _MODEL,
        "system_fingerprint": server,
        "choices": [{"index": 0, **choice}],
        **more,
    }
    return b"data: %s\n\n" % json.dumps(chunk, separators=(",", ":")).encode()
