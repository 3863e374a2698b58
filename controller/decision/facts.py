"""What is known about a model at one moment."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Known(Generic[T]):
    """A measured value and when it was measured."""

    value: T
    at: datetime


@dataclass(frozen=True, slots=True)
class Unknown:
    """No value, and why there is none. Never the same as zero."""

    why: str


@dataclass(frozen=True, slots=True)
class LocalFacts:
    """Endpoints of the local Service: how many there should be, and how many of them are ready and not terminating."""

    ready: int
    total: int


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """Whether the remote backend answers, as the xDS servers find; why, in a sentence (`detail`) and in one word."""

    healthy: bool
    detail: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision is made from, apart from the object itself and what is remembered."""

    local: LocalFacts
    remote: Known[RemoteFacts] | Unknown = Unknown("nothing reports the health of the remote backend yet")
