"""The object store as both programs see it: watch some kinds, patch a status.

Two stores implement it: `directory` (a folder of YAML) and, later, `kube` (the API server). Both pass the contract
tests in `tests/store`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from controller.store.objects import ObjectRef, StoredObject


class StoreError(Exception):
    """The root of everything a store raises.

    ::

        StoreError
        |-- ConflictError   the object changed since it was read
        `-- NotFoundError   the object is gone
    """


class ConflictError(StoreError):
    """The object's resourceVersion is no longer the one the writer read."""


class NotFoundError(StoreError):
    """No such object."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes that belong together, newest state of each object only.

    `complete` marks a full list: an object that is not in `changed` does not exist. The first batch of a watch is
    always complete; a later complete one follows a relist. Otherwise `changed` and `deleted` are disjoint.
    """

    changed: tuple[StoredObject, ...] = ()
    deleted: tuple[ObjectRef, ...] = ()
    complete: bool = False


class ObjectStore(Protocol):
    """Where Kubernetes objects live."""

    def watch(self, kinds: Collection[str]) -> AsyncIterator[Batch]:
        """Yield one complete batch at once, then every change of objects of these kinds, until it is closed.

        Guarantees: every object's last state is delivered; states in between may be left out; a slow reader never
        delays a writer or another reader. A write of one's own comes back like anybody's.
        """
        ...

    async def patch_status(self, ref: ObjectRef, status: Mapping[str, Any], resource_version: str) -> None:
        """Replace the status of one object, if it is still at `resource_version`.

        Raises ConflictError when it is not, NotFoundError when the object is gone. An equal status writes nothing.
        """
        ...
