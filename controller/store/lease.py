"""A lease as those who want it see it: one record that everybody reads and only one may hold.

The words are those of `coordination.k8s.io/v1` Lease, the semantics those of client-go's leader election.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """Who holds the lease (empty: nobody), for how many seconds after each renewal, since when, the how manieth.

    Its times are for people: no program may compare them with its own clock. Two records are equal when they say the
    same, whatever their `version` (resourceVersion; empty for one that is not written yet).
    """

    holder: str
    seconds: int
    acquired_at: datetime | None = None
    renewed_at: datetime | None = None
    transitions: int = 0
    version: str = field(default="", compare=False)


class Lease(Protocol):
    """One lease by its name."""

    async def read(self) -> LeaseRecord | None:
        """Give the record as it is now, None when there is no such lease. Raises StoreError."""
        ...

    async def write(self, record: LeaseRecord) -> LeaseRecord:
        """Write a record in place of that of `record.version`, or the first one; give it with its new version.

        Raises ConflictError or NotFoundError when the lease is no longer that, another StoreError when it is unknown
        whether it was written.
        """
        ...
