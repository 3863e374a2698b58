"""What the API server's answers mean: an object, the lines of a stream, or an error for each status. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any

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

UNAUTHORIZED = 401
FORBIDDEN = 403

_LONGEST = 500  # Characters of the API server's words that are kept.
_OTHER_MANAGER = re.compile(r'conflict with "([^"]*)"')
# Seconds: the longest wait that is granted. The API server asks for one or two; what stands before it may ask for an
# hour, in which nothing would be read or written though all were well again.
_LONGEST_WAIT = 10.0
# How many times its bytes an answer may take once it is read. A list of pods takes five times as many, and one of
# nothing but `{}` forty.
_LARGER = 16


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """An answer as it came: its HTTP status, its bytes, and when it was made by the server's clock, if it says so."""

    status: int
    body: bytes = field(repr=False)
    at: datetime | None = None


class UnauthorizedError(ForbiddenError):
    """The API server does not know who we are (HTTP 401)."""


class UnusableAnswerError(UnavailableError):
    """The answer is no refusal and no object: it is longer than was asked for, no JSON, or leads elsewhere."""


def object_of(request: str, body: bytes, most: int | None = None) -> dict[str, Any]:
    """Read the object that an answer is, of which there may be `most` bytes, which may take some more as values.

    `request` is what was asked for, in words. Raises UnusableAnswerError.
    """
    if most is not None and _unpacked(body) > _LARGER * most:
        raise UnusableAnswerError(f"{request}: the answer has more values than its size admits")
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise UnusableAnswerError(f"{request}: the answer is no JSON") from error
    if not isinstance(answer, dict):
        raise UnusableAnswerError(f"{request}: the answer is no object")
    return answer


def _unpacked(body: bytes) -> int:
    """Say how many bytes JSON takes once it is read, about: what is a separator in a text counts as one outside.

    A `dict` takes 184 bytes, an empty one 64, a `list` 56, and whatever stands in one some 64.
    """
    objects, empty = body.count(b"{"), body.count(b"{}")
    return 184 * (objects - empty) + 64 * (empty + body.count(b",")) + 56 * body.count(b"[")


def moment_of(date: str | None) -> datetime | None:
    """Read the header `Date` (RFC 9110, section 6.6.1), which has whole seconds; one without a zone says nothing."""
    try:
        moment = parsedate_to_datetime(date) if date else None
        return moment if moment and moment.tzinfo else None
    except ValueError:
        return None


def split_lines(rest: bytes, data: bytes) -> tuple[list[bytes], bytes]:
    """Split off whole lines; what follows the last line break is the rest, to be given with the next data."""
    *lines, rest = (rest + data).split(b"\n") if b"\n" in data else (rest + data,)
    return [line for line in lines if line.strip()], rest


def error_for(request: str, status: int, headers: Mapping[str, str], body: bytes) -> StoreError:
    """The error for an answer with an HTTP status from 300 on. `request` is what was asked for, in words."""
    answer = _status_object(body)
    message = answer.get("message")
    words = f"{request}: {message[:_LONGEST] if isinstance(message, str) and message else f'HTTP {status}'}"
    match status:
        case 401:
            return UnauthorizedError(words)
        case 403:
            return ForbiddenError(words)
        case 404:
            return NotFoundError(words)
        case 409:
            return _conflict(words, answer)
        case 410:
            return ExpiredError(words)
        case 429:
            return UnavailableError(words, status=status, after=_wait_asked_for(headers, answer), unsent=True)
        case _ if status >= 500:
            return UnavailableError(words, status=status, after=_wait_asked_for(headers, answer))
        case 422 if any(cause.get("field") == "metadata.uid" for cause in _causes(answer)):
            # So a patch or an apply is answered that names the uid of another object: a precondition, to its author.
            return ConflictError(words)
    return RefusedError(words)


def error_of_event(request: str, status: Mapping[str, Any]) -> StoreError:
    """The error that a watch event of type ERROR carries, a Status object."""
    code = status.get("code")
    return error_for(request, code if isinstance(code, int) else 500, {}, json.dumps(status).encode())


def _conflict(words: str, answer: Mapping[str, Any]) -> ConflictError:
    if answer.get("reason") == "AlreadyExists":
        return AlreadyExistsError(words)
    conflicts = tuple(
        FieldConflict(manager[1] if manager else "", str(cause.get("field", "")))
        for cause in _causes(answer)
        if cause.get("reason") == "FieldManagerConflict"
        for manager in [_OTHER_MANAGER.match(str(cause.get("message", "")))]
    )
    return FieldConflictError(words, conflicts) if conflicts else ConflictError(words)


def _causes(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    causes = _details(answer).get("causes")
    return [cause for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []


def _details(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    details = answer.get("details")
    return details if isinstance(details, dict) else {}


def _status_object(body: bytes) -> Mapping[str, Any]:
    """The Status object that the API server answers, empty when a proxy on the way answered instead."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) and answer.get("kind") == "Status" else {}


def _wait_asked_for(headers: Mapping[str, str], answer: Mapping[str, Any]) -> float | None:
    """Seconds of `Retry-After` (RFC 9110, 10.2.3; the API server never sends a date) or of the Status object."""
    asked = headers.get("Retry-After") or _details(answer).get("retryAfterSeconds")
    try:
        return None if asked is None else min(max(0.0, float(asked)), _LONGEST_WAIT)
    except (TypeError, ValueError, OverflowError):
        return None
