"""Asking the API server for measurements: bounded in size, and every way to fail in words for a status."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar

from pydantic import BaseModel

from controller.api.schema.errors import FieldError, InvalidObjectError, type_name
from controller.api.schema.scalars import LONGEST_WINDOW
from controller.api.schema.values import parse
from controller.decision.facts import Cause
from controller.signals.poller import SourceError
from controller.store.kube.answers import UnauthorizedError, UnusableAnswerError
from controller.store.protocol import ForbiddenError, NotFoundError, StoreError, UnavailableError

MOST_BYTES = 4 * 2**20
"""Bytes of one answer with measurements: of a pod some hundreds. It is unpacked in one step, in which nothing else has
its turn, also if another thread did it; and ten answers may be on their way here at once.
"""
MOST_ITEMS = 5000
_AT_A_TIME = 100
"""Items that are read before others have their turn: some milliseconds. Plans take as long, and an answer has five
seconds.
"""
_MOST_WORDS = 200
_FIRST_YEAR = 1970
_DOES_NOT_ANSWER = 503

# What differs from answer to answer, and would be written to the status each time.
_ADDRESS = re.compile(r"(\d{1,3}(\.\d{1,3}){3}|\[[0-9a-fA-F]*:[0-9a-fA-F:]*\])(:\d+)?")

Answer = TypeVar("Answer", bound=BaseModel)
Value = TypeVar("Value")


class ApiReader(Protocol):
    """Reads from the API server."""

    async def fetch(self, path: str, query: Mapping[str, str], most: int | None = None) -> dict[str, Any]:
        """GET once; an answer of more than `most` bytes is not read. Raises StoreError."""
        ...


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of the API server.

    `group` names the API in words, `right` the right that it takes, as in `list pods`. `absent` is what HTTP 404 means;
    empty where the words of the answer say it best. Of an answer no more than `most` bytes are read.
    """

    group: str
    path: str
    right: str
    absent: str = ""
    query: Mapping[str, str] = field(default_factory=dict)
    most: int = MOST_BYTES


async def ask(reader: ApiReader, question: Question, schema: type[Answer]) -> Answer:
    """Ask, and read the answer by its schema. Raises SourceError that says who failed and how."""
    answer = await _fetched(reader, question)
    try:
        return parse(schema, answer)
    except InvalidObjectError as error:
        raise _not_usable(question, error.errors[0]) from error


async def ask_for_items(reader: ApiReader, question: Question, schema: type[Answer]) -> Sequence[Answer]:
    """Ask for a list, and read each of its items by its schema; others have their turns meanwhile.

    A part of a list is none: what it leaves out would be taken for missing. Raises SourceError as `ask` does.
    """
    answer = await _fetched(reader, question)
    found, about = answer.get("items"), answer.get("metadata")
    found = [] if found is None else found
    if not isinstance(found, list):
        raise _not_usable(question, FieldError(("items",), f"must be a list, is {type_name(found)}"))
    if len(found) > MOST_ITEMS:
        raise SourceError(f"{question.group} cannot be used: the answer has more than {MOST_ITEMS} items")
    if isinstance(about, Mapping) and about.get("continue"):
        raise SourceError(f"{question.group} cannot be used: the answer is the first part of a list, and not all of it")
    read: list[Answer] = []
    async for one in in_turns(found, _AT_A_TIME):
        try:
            read.append(parse(schema, one))
        except InvalidObjectError as error:
            first = error.errors[0]
            raise _not_usable(question, FieldError(("items", len(read), *first.path), first.message)) from error
    return read


async def in_turns(values: Iterable[Value], at_a_time: int) -> AsyncIterator[Value]:
    """Yield values; after so many of them, whatever else this process does has its turn."""
    for number, one in enumerate(values, 1):
        yield one
        if number % at_a_time == 0:
            await asyncio.sleep(0)


async def _fetched(reader: ApiReader, question: Question) -> Mapping[str, Any]:
    try:
        return await reader.fetch(question.path, question.query, question.most)
    except StoreError as error:
        raise SourceError(_words_of(error, question), _cause_of(error, question)) from error


def _not_usable(question: Question, fault: FieldError) -> SourceError:
    return SourceError(f"{question.group} gave an answer that is not what it should be: {_clean(str(fault))}")


def _words_of(error: StoreError, question: Question) -> str:
    group, said = question.group, _clean(str(error).partition(": ")[2])
    match error:
        case UnauthorizedError():
            return "the API server does not accept the credentials of the controller (HTTP 401)"
        case ForbiddenError():
            return f"the controller may not {question.right} (HTTP 403): bind the role beamlit-controller there"
        case NotFoundError():
            return question.absent or f"{group} has no such metric (HTTP 404): {said}"
        case UnusableAnswerError():
            return f"{group} cannot be used: {said}"
        case UnavailableError(status=0):
            return f"{group} is not asked: the API server does not answer"
        case UnavailableError(status=status) if status == _DOES_NOT_ANSWER:
            return f"{group} does not answer (HTTP 503): whoever serves it is down, or not ready"
        case UnavailableError(status=status):
            return f"{group} failed (HTTP {status}): {said}"
    return f"{group} refuses what is asked for: {said}"


def _cause_of(error: StoreError, question: Question) -> Cause:
    match error:
        case UnauthorizedError() | ForbiddenError():
            return Cause.NOT_PERMITTED
        case NotFoundError():
            return Cause.NO_SOURCE if question.absent else Cause.NO_SUCH_METRIC
        case UnusableAnswerError():
            return Cause.NOT_USABLE
        case UnavailableError():
            return Cause.NOT_ANSWERING
    return Cause.INVALID


def _clean(words: str) -> str:
    """Make the words of others fit into a status: one line, short, and the same as long as the matter is.

    Half of a surrogate pair, which JSON has escapes for, would come back from the API server as another character.
    """
    line = "".join(one if one.isprintable() else " " for one in words)
    text = _ADDRESS.sub("an address", " ".join(line.split()))
    return text if len(text) <= _MOST_WORDS else f"{text[:_MOST_WORDS]} ..."


def moment_of(timestamp: datetime | None, now: datetime) -> datetime:
    """Read when something was measured: one that says nothing is of now, and none is of the future."""
    if timestamp is None or timestamp.year < _FIRST_YEAR:
        return now
    return min(timestamp, now)


# A duration as Go writes it (time.Duration.String).
_PART = re.compile(r"([0-9]{1,9}(?:\.[0-9]{0,9})?)(ns|us|µs|ms|s|m|h)")
_SECONDS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def window_of(written: str | int) -> timedelta:
    """Read over how long something was measured: seconds, or a duration such as `1m0.5s`; a day at most."""
    if isinstance(written, int):
        return timedelta(seconds=min(written, LONGEST_WINDOW.total_seconds()))
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _PART.findall(written))
    return timedelta(seconds=min(seconds, LONGEST_WINDOW.total_seconds()))
