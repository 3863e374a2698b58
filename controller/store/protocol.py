"""The object store as both programs see it: watch some kinds, patch a status.

Two stores implement it: `directory` (a folder of YAML) and `kube` (the API server). Both pass the contract tests in
`tests/store`.
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
        |-- ConflictError        the object changed since it was read (or is there already)
        |-- NotFoundError        the object is gone
        |-- ExpiredError         what was asked for lies too far back; list again
        |-- ForbiddenError       the store does not let us; says which verb on which resource
        |-- RefusedError         the store does not take what was sent, nor would it the next time
        |-- UnavailableError     no answer, or none for now; worth another try later
        `-- ConfigurationError   where the store is, or who we are there, cannot be told
    """


class ConflictError(StoreError):
    """The object's resourceVersion is no longer the one the writer read, or an object of that name exists."""


class NotFoundError(StoreError):
    """No such object."""


class ExpiredError(StoreError):
    """The resourceVersion or the page asked for is no longer known (HTTP 410): list again."""


class ForbiddenError(StoreError):
    """The caller may not do this (HTTP 401 and 403); the message names the verb and the resource."""


class RefusedError(StoreError):
    """The request is at fault (other HTTP 4xx); the same one will be refused again."""


class UnavailableError(StoreError):
    """No answer in time, or one that says "not now".

    `status` is the HTTP status, 0 without an answer. `after` are the seconds that the server asks us to wait, if it
    does. `unsent` is true when the server certainly did nothing.
    """

    def __init__(self, message: str, *, status: int = 0, after: float | None = None, unsent: bool = False) -> None:
        super().__init__(message)
        self.status = status
        self.after = after
        self.unsent = unsent


class ConfigurationError(StoreError):
    """How to reach the store is not said, or not rightly; the message names the file and the reason."""


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
