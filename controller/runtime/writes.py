"""Writes as values: what is planned in one place is done in another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from controller.store.objects import ObjectRef
from controller.store.protocol import UNCONDITIONAL, Precondition


class Verb(Enum):
    """What a write does: the methods of `ObjectWriter`."""

    CREATE = "create"
    APPLY = "apply"
    PATCH = "patch"
    DELETE = "delete"
    PATCH_STATUS = "patch_status"
    RELEASE_FIELDS = "release_fields"


class WrittenBy(Enum):
    """Who may do a write: the leader alone, or any replica since all of them would write the same."""

    LEADER = "leader"
    ANY_REPLICA = "any replica"


@dataclass(frozen=True, slots=True)
class Write:
    """One write: a verb, the object, what it shall have (nothing to delete it), and what must hold for it to happen."""

    verb: Verb
    ref: ObjectRef
    content: Mapping[str, Any] = field(default_factory=dict)
    precondition: Precondition = UNCONDITIONAL
    by: WrittenBy = WrittenBy.LEADER
