"""The object store as both programs see it: watch some kinds, read and write single objects.

Two stores implement it: `directory` (a folder of YAML) and `kube` (the API server). Both pass the contract tests in
`tests/store`. Verbs and their meaning are those of the Kubernetes API, so what is known of controller-runtime's client
holds here.
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
        |-- ConflictError            a precondition does not hold: the object changed since it was read, or is another
        |   |-- AlreadyExistsError   there is an object of the name that was to be created
        |   `-- FieldConflictError   an apply would change fields of other field managers; says whose and which
        |-- NotFoundError            the object is gone
        |-- ExpiredError             what was asked for lies too far back; list again
        |-- ForbiddenError           the store does not let us; says which verb on which resource
        |-- RefusedError             the store does not take what was sent, nor would it the next time
        |-- UnavailableError         no answer, or none for now; worth another try later
        `-- ConfigurationError       where the store is, or who we are there, cannot be told
    """


class ConflictError(StoreError):
    """The object is no longer the one, or no longer at the resourceVersion, that the writer asked for."""


class AlreadyExistsError(ConflictError):
    """An object of that name exists already."""


@dataclass(frozen=True, slots=True)
class FieldConflict:
    """A field (`.spec.replicas`) that belongs to another field manager."""

    manager: str
    field: str


class FieldConflictError(ConflictError):
    """An apply would change fields that belong to other field managers. Forced, it takes them over."""

    def __init__(self, message: str, conflicts: tuple[FieldConflict, ...]) -> None:
        super().__init__(message)
        self.conflicts = conflicts


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


@dataclass(frozen=True, slots=True)
class Precondition:
    """What must hold for a write to happen: the object has this uid, is at this resourceVersion. Empty: any."""

    uid: str = ""
    resource_version: str = ""

    @classmethod
    def unchanged(cls, stored: StoredObject) -> Precondition:
        """Only if the object is the one that was read, and nobody wrote it since."""
        return cls(stored.uid, stored.resource_version)

    @property
    def metadata(self) -> Mapping[str, str]:
        """The fields of an object's metadata that say the same."""
        given = {"uid": self.uid, "resourceVersion": self.resource_version}
        return {name: value for name, value in given.items() if value}

    def check(self, stored: StoredObject) -> None:
        """Raise ConflictError when it does not hold for an object."""
        if self.uid and self.uid != stored.uid:
            raise ConflictError(f"{stored.ref} has the uid {stored.uid}, not {self.uid}")
        if self.resource_version and self.resource_version != stored.resource_version:
            raise ConflictError(
                f"{stored.ref} is at resourceVersion {stored.resource_version}, not {self.resource_version}"
            )


UNCONDITIONAL = Precondition()
"""Write whatever there is now."""

FIELD_MANAGER = "beamlit-controller"
"""The field manager of everything that the programs write, unless they name another."""


class ObjectReader(Protocol):
    """Reads single objects."""

    async def read(self, ref: ObjectRef) -> StoredObject:
        """Return an object as it is now, whole. Raises NotFoundError or another StoreError."""
        ...


class ObjectWriter(Protocol):
    """Writes single objects.

    Each verb but `delete` returns the object as it is after the write, which costs nothing: the store has it anyway.
    What would change nothing writes nothing: the resourceVersion stays. `raw` is a whole object with `apiVersion`,
    `kind` and `metadata.name`; its uid and resourceVersion do not count, `precondition` does. Its status is left out:
    only `patch_status` writes one. What was given may be changed afterwards.

    Raises ConflictError when the precondition does not hold, NotFoundError when there is no such object, RefusedError
    when the object is not valid or not ours to write, ForbiddenError, or UnavailableError: then it may have been
    written all the same, unless `unsent`.
    """

    async def create(self, raw: Mapping[str, Any]) -> StoredObject:
        """Write an object that is not there yet. Raises AlreadyExistsError when it is."""
        ...

    async def update(self, raw: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        """Replace an object; what `raw` lacks goes. So it is for what `read` gave: a watch may leave things out.

        The API server refuses an update without a resourceVersion for most kinds (RefusedError).
        """
        ...

    async def apply(
        self,
        raw: Mapping[str, Any],
        manager: str = FIELD_MANAGER,
        *,
        force: bool = False,
        precondition: Precondition = UNCONDITIONAL,
    ) -> StoredObject:
        """Server-side apply: `raw` is all that this field manager has to say; create the object if it is not there.

        Fields that it applied before and does not any more go, unless they are another manager's too. Fields with
        another value that belong to another manager raise FieldConflictError, or are taken over by `force`.
        A precondition of an object that is not there is a ConflictError.
        """
        ...

    async def patch(
        self, ref: ObjectRef, changes: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        """Merge changes into an object (RFC 7386): a null removes a field, a list is replaced as a whole."""
        ...

    async def delete(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> None:
        """Delete an object. It is gone when a watch says so: finalizers may hold it."""
        ...

    async def release_fields(self, ref: ObjectRef, precondition: Precondition = UNCONDITIONAL) -> StoredObject:
        """Give up every field of an object that is ours (`FIELD_MANAGER`), the status apart; their values stay.

        Whoever applies them next takes nothing from anybody.
        """
        ...

    async def patch_status(
        self, ref: ObjectRef, status: Mapping[str, Any], precondition: Precondition = UNCONDITIONAL
    ) -> StoredObject:
        """Replace the status of an object as a whole, and nothing else of it."""
        ...


class ObjectClient(ObjectReader, ObjectWriter, Protocol):
    """Reads and writes single objects, and follows none."""


class ObjectStore(ObjectClient, Protocol):
    """Where Kubernetes objects live."""

    def watch(self, kinds: Collection[str]) -> AsyncIterator[Batch]:
        """Yield one complete batch at once, then every change of objects of these kinds, until it is closed.

        Guarantees: every object's last state is delivered; states in between may be left out; a slow reader never
        delays a writer or another reader. A write of one's own comes back like anybody's.
        """
        ...
