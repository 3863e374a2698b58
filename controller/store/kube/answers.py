"""What the API server's answers mean: lines of a stream, and the error behind a status. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from controller.store.protocol import (
    ConflictError,
    ExpiredError,
    ForbiddenError,
    NotFoundError,
    RefusedError,
    StoreError,
    UnavailableError,
)

_LONGEST = 500  # Characters of the API server's words that are kept.
# Seconds: the longest wait that is granted. The API server asks for one or two; what stands before it may ask for an
# hour, in which nothing would be read or written though all were well again.
_LONGEST_WAIT = 10.0


class UnauthorizedError(ForbiddenError):
    """The API server does not know who we are (HTTP 401)."""


def split_lines(rest: bytes, data: bytes) -> tuple[list[bytes], bytes]:
    """Split off whole lines; what follows the last line break is the rest, to be given with the next data."""
    *lines, rest = (rest + data).split(b"\n") if b"\n" in data else (rest + data,)
    return [line for line in lines if line.strip()], rest


def error_for(request: str, status: int, headers: Mapping[str, str], body: bytes) -> StoreError:
    """The error for an answer with an HTTP status from 300 on. `request` is what was asked for, in words."""
    answer = _status_object(body)
    words = f"{request}: {str(answer.get('message') or f'HTTP {status}')[:_LONGEST]}"
    match status:
        case 401:
            return UnauthorizedError(words)
        case 403:
            return ForbiddenError(words)
        case 404:
            return NotFoundError(words)
        case 409:
            return ConflictError(words)
        case 410:
            return ExpiredError(words)
        case 429:
            return UnavailableError(words, status=status, after=_wait_asked_for(headers, answer), unsent=True)
        case _ if status >= 500:
            return UnavailableError(words, status=status, after=_wait_asked_for(headers, answer))
    return RefusedError(words)


def error_of_event(request: str, status: Mapping[str, Any]) -> StoreError:
    """The error that a watch event of type ERROR carries, a Status object."""
    code = status.get("code")
    return error_for(request, code if isinstance(code, int) else 500, {}, json.dumps(status).encode())


def _status_object(body: bytes) -> Mapping[str, Any]:
    """The Status object that the API server answers, empty when a proxy on the way answered instead."""
    try:
        answer = json.loads(body)
    except ValueError:
        return {}
    return answer if isinstance(answer, dict) and answer.get("kind") == "Status" else {}


def _wait_asked_for(headers: Mapping[str, str], answer: Mapping[str, Any]) -> float | None:
    """Seconds of `Retry-After` (RFC 9110, 10.2.3; the API server never sends a date) or of the Status object."""
    asked = headers.get("Retry-After") or (answer.get("details") or {}).get("retryAfterSeconds")
    try:
        return None if asked is None else min(max(0.0, float(asked)), _LONGEST_WAIT)
    except (TypeError, ValueError):
        return None
