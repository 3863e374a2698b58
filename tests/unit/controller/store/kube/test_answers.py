"""Lines of a stream, and the error behind an HTTP status."""

from __future__ import annotations

import json

import pytest

from controller.store.kube.client import error_for, split_lines
from controller.store.protocol import (
    ConflictError,
    ExpiredError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    StoreError,
    UnavailableError,
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_come_whole_however_the_data_is_cut(size: int) -> None:
    text = b'{"a":1}\n\n{"b":2}\n{"cut'
    found, rest = [], b""
    for start in range(0, len(text), size):
        lines, rest = split_lines(rest, text[start : start + size])
        found += lines
    assert found == [b'{"a":1}', b'{"b":2}']
    assert rest == b'{"cut'


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (400, RefusedError),
        (401, ForbiddenError),
        (403, ForbiddenError),
        (404, NotFoundError),
        (409, ConflictError),
        (410, ExpiredError),
        (422, RefusedError),
        (429, UnavailableError),
        (500, UnavailableError),
        (504, UnavailableError),
    ],
)
def test_a_status_is_an_error_with_the_servers_words(status: int, expected: type[StoreError]) -> None:
    body = json.dumps({"kind": "Status", "message": "the words"}).encode()
    error = error_for("GET /x", status, {}, body)
    assert type(error) is expected or isinstance(error, expected)
    assert str(error) == "GET /x: the words"


def test_a_proxy_that_answers_a_page_is_no_trouble() -> None:
    assert str(error_for("GET /x", 502, {}, b"<html>")) == "GET /x: HTTP 502"


@pytest.mark.parametrize(
    ("headers", "body", "after"),
    [
        ({"Retry-After": "3"}, {}, 3.0),
        ({}, {"kind": "Status", "details": {"retryAfterSeconds": 2}}, 2.0),
        ({}, {"kind": "Status"}, None),
        ({"Retry-After": "3600"}, {}, 10.0),
        ({"Retry-After": "nan"}, {}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, {}, None),
    ],
)
def test_the_server_says_how_long_to_wait_within_reason(
    headers: dict[str, str], body: object, after: float | None
) -> None:
    error = error_for("GET /x", 429, headers, json.dumps(body).encode())
    assert isinstance(error, UnavailableError)
    assert error.after == after
    assert error.unsent
