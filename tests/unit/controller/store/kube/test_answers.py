"""Lines of a stream, and the error behind an HTTP status."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from controller.store.kube.answers import error_for, moment_of, split_lines
from controller.store.protocol import (
    AlreadyExistsError,
    ConflictError,
    ExpiredError,
    FieldConflict,
    FieldConflictError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    StoreError,
    UnavailableError,
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
def test_lines_come_whole_however_the_data_is_cut(size: int) -> None:
    text = b'{"a":1}\n\n{"b":2}\n{"cut'
    whole, rest = [], b""
    for start in range(0, len(text), size):
        lines, rest = split_lines(rest, text[start : start + size])
        whole += lines
    assert whole == [b'{"a":1}', b'{"b":2}']
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


def status_of(reason: str, *causes: object) -> bytes:
    return json.dumps({"kind": "Status", "message": "no", "reason": reason, "details": {"causes": causes}}).encode()


def test_what_exists_already_is_told_from_what_changed() -> None:
    assert type(error_for("POST /x", 409, {}, status_of("AlreadyExists"))) is AlreadyExistsError
    assert type(error_for("PUT /x", 409, {}, status_of("Conflict"))) is ConflictError


def test_conflicts_of_an_apply_name_managers_and_fields() -> None:
    message = 'conflict with "kubectl" using deployment.beamlit.com/v1alpha1'
    first = {"reason": "FieldManagerConflict", "message": message, "field": ".spec.environment"}
    second = {"reason": "FieldManagerConflict", "message": 'conflict with "helm"', "field": ".metadata.labels.a"}
    error = error_for("PATCH /x", 409, {}, status_of("Conflict", first, second))
    assert isinstance(error, FieldConflictError)
    assert error.conflicts == (
        FieldConflict("kubectl", ".spec.environment"),
        FieldConflict("helm", ".metadata.labels.a"),
    )


def test_the_uid_of_another_object_is_a_conflict_though_the_server_calls_it_invalid() -> None:
    immutable = {"reason": "FieldValueInvalid", "message": "field is immutable", "field": "metadata.uid"}
    assert type(error_for("PATCH /x", 422, {}, status_of("Invalid", immutable))) is ConflictError
    other = immutable | {"field": "spec.uid"}
    assert type(error_for("PATCH /x", 422, {}, status_of("Invalid", other))) is RefusedError


@pytest.mark.parametrize("causes", [None, "x", [None], [{"reason": "FieldManagerConflict"}]])
def test_causes_that_are_none_are_no_crash(causes: object) -> None:
    body = json.dumps({"kind": "Status", "message": "no", "details": {"causes": causes}}).encode()
    assert isinstance(error_for("PATCH /x", 409, {}, body), ConflictError)
    assert isinstance(error_for("PATCH /x", 422, {}, body), RefusedError)


@pytest.mark.parametrize("status", [403, 409, 422, 429, 500])
@pytest.mark.parametrize(
    "body",
    [
        b"[" * 65536,
        b'{"kind": "Status", "details": "x"}',
        b'{"kind": "Status", "details": [1], "message": [1]}',
        b'{"kind": "Status", "details": {"retryAfterSeconds": 1%s}}' % (b"0" * 400),
        b'{"kind": "Status", "message": %s1%s}' % (b"[" * 900, b"]" * 900),
    ],
    ids=lambda body: body[:30].decode() if isinstance(body, bytes) else None,
)
def test_a_refusal_that_is_not_as_the_api_server_refuses_is_an_error_all_the_same(status: int, body: bytes) -> None:
    assert str(error_for("GET /x", status, {}, body)) == f"GET /x: HTTP {status}"


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


def test_an_answer_says_when_it_was_made_if_it_names_a_zone() -> None:
    assert moment_of("Thu, 01 Jan 2026 12:00:00 GMT") == datetime(2026, 1, 1, 12, tzinfo=UTC)
    assert [moment_of(one) for one in (None, "", "noon", "Thu, 01 Jan 2026 12:00:00 -0000")] == [None] * 4
