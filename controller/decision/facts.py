"""What a decision is made from: values, measured at one moment."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Generic, Literal, TypeVar

from controller.api.contract.health import RemoteHealth, unknown

T = TypeVar("T")

NOT_CHECKED = unknown("nothing reports the health of the remote backend yet")


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
    """Endpoints of the local Service: how many there should be, and how many of them are ready.

    `leaving` are those that still answer while they terminate; while none is ready, they are the last choice.
    """

    ready: int
    total: int
    leaving: int = 0


@dataclass(frozen=True, slots=True)
class RemoteFacts:
    """One remote backend that requests may leave for: its name, and whether it answers."""

    name: str
    health: RemoteHealth = NOT_CHECKED


@dataclass(frozen=True, slots=True)
class Signal:
    """One metric compared with its target: both as text, the outcome, and why it is unknown if it is.

    `at` is when it was measured.
    """

    name: str
    target: str
    state: Literal["Clear", "Breached", "Unknown"]
    current: str | None = None
    message: str | None = None
    at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything a decision is made from, apart from what the object asks for and what is remembered.

    `remotes` are those that may be used, in the order in which they are tried: without any nothing may leave, and
    `no_remote` says why there is none.
    """

    local: LocalFacts
    remotes: tuple[RemoteFacts, ...] = ()
    no_remote: str = "there is no remote backend that may be used"
    signals: tuple[Signal, ...] = field(default=())
