"""Where each kind lives in the Kubernetes API."""

from __future__ import annotations

from collections.abc import Collection as AnyCollection
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from controller.store.objects import ObjectRef, StoredObject


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind: its group (empty for core), version and plural name; `selector` leaves out objects by their fields."""

    kind: str
    group: str
    version: str
    plural: str
    selector: str = ""

    @property
    def api_version(self) -> str:
        """As objects carry it: `v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def name(self) -> str:
        """As kubectl and RBAC call it: `services`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    def collection(self, namespace: str = "") -> str:
        """The path of all objects, of one namespace or (empty) of every one."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{root}/namespaces/{namespace}/{self.plural}" if namespace else f"{root}/{self.plural}"

    def status_of(self, ref: ObjectRef) -> str:
        """The path of one object's status."""
        return f"{self.collection(ref.namespace)}/{ref.name}/status"


# Releases of helm and tokens of service accounts are nobody's credentials for a backend, and the bulk of most clusters'
# Secrets: they never come here.
_CREDENTIALS = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"

RESOURCES: Mapping[str, Resource] = MappingProxyType(
    {
        resource.kind: resource
        for resource in (
            Resource("ModelDeployment", "deployment.beamlit.com", "v1alpha1", "modeldeployments"),
            Resource("ToolDeployment", "deployment.beamlit.com", "v1alpha1", "tooldeployments"),
            Resource("Policy", "authorization.beamlit.com", "v1alpha1", "policies"),
            Resource("Service", "", "v1", "services"),
            Resource("Secret", "", "v1", "secrets", _CREDENTIALS),
            Resource("EndpointSlice", "discovery.k8s.io", "v1", "endpointslices"),
            Resource("Deployment", "apps", "v1", "deployments"),
            Resource("StatefulSet", "apps", "v1", "statefulsets"),
        )
    }
)


_REMEMBERED = 1000  # Deletions. A word that comes too late for one is as late as an answer to a request may be.


@dataclass(frozen=True, slots=True)
class Changes:
    """What to tell the readers."""

    changed: tuple[StoredObject, ...] = ()
    deleted: tuple[ObjectRef, ...] = ()


@dataclass(frozen=True, slots=True)
class Listing:
    """A consistent list of all objects, at one version."""

    objects: Mapping[ObjectRef, StoredObject] = field(repr=False)
    version: int


@dataclass(frozen=True, slots=True)
class Suspicion:
    """A list that was not believed: why, since when (seconds), and what it said."""

    why: str
    since: float
    refs: AnyCollection[ObjectRef] = field(repr=False)
    version: int


class Collection:
    """Owned by one task. A doubtful list is believed when one `patience` seconds later says so, too."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._objects: dict[ObjectRef, StoredObject] = {}
        self._deleted: dict[ObjectRef, int] = {}
        self.version = 0  # Everything up to here was told.
        self.listed = False
        self.suspicion: Suspicion | None = None

    @property
    def objects(self) -> AnyCollection[StoredObject]:
        """All objects."""
        return self._objects.values()

    def find(self, ref: ObjectRef) -> StoredObject | None:
        """One object, or None."""
        return self._objects.get(ref)

    def bookmark(self, version: int) -> None:
        """Everything up to this version was told."""
        self.version = max(self.version, version)

    def hear(self, event: str, stored: StoredObject) -> Changes:
        """Take an event of a watch: `ADDED`, `MODIFIED`, or `DELETED`, which carries the deletion's own version."""
        self.bookmark(_version(stored))
        if event != "DELETED":
            return self.put(stored)
        if _version(stored) <= self._known(stored.ref):
            return Changes()
        self._remember(stored.ref, _version(stored))
        return Changes(deleted=(stored.ref,) if self._objects.pop(stored.ref, None) else ())

    def put(self, stored: StoredObject) -> Changes:
        """Take an object as it was at its version: from an event, or returned by a write of our own."""
        if _version(stored) <= self._known(stored.ref):
            return Changes()
        self._objects[stored.ref] = stored
        return Changes(changed=(stored,))

    def replace(self, listing: Listing, now: float) -> Changes:
        """Take a list if it is believed; otherwise nothing changes and `suspicion` says why.

        Doubtful is a list that lacks more than half of the objects, an empty one included, or whose version lies behind
        what was told before: etcd may have lost its data or come back from a backup. A second list, `patience` seconds
        later, settles it unless it is as doubtful to one who believed the first.
        """
        why = doubt(self._objects.keys(), self.version, listing) if self.listed else ""
        first = self.suspicion
        if why and (first is None or doubt(first.refs, first.version, listing)):
            self.suspicion = Suspicion(why, now, listing.objects.keys(), listing.version)
            return Changes()
        if why and first is not None and now - first.since < self.patience:
            return Changes()
        changes = self._take(listing, rewound=listing.version < self.version)
        self.suspicion, self.listed, self.version = None, True, listing.version
        return changes

    def _take(self, listing: Listing, *, rewound: bool) -> Changes:
        """Let a list overrule every word but those about later versions of the same history."""
        later = set() if rewound else {ref for ref in self._words() if self._known(ref) > listing.version}
        gone = tuple(ref for ref in self._objects if ref not in listing.objects and ref not in later)
        changed = tuple(
            stored for ref, stored in listing.objects.items() if ref not in later and not self._holds(stored)
        )
        self._deleted = {ref: version for ref, version in self._deleted.items() if ref in later}
        for ref in gone:
            del self._objects[ref]
            self._remember(ref, listing.version)
        self._objects.update((stored.ref, stored) for stored in changed)
        return Changes(changed, gone)

    def _words(self) -> AnyCollection[ObjectRef]:
        return self._objects.keys() | self._deleted.keys()

    def _holds(self, stored: StoredObject) -> bool:
        held = self._objects.get(stored.ref)
        return held is not None and held.same_as(stored)

    def _known(self, ref: ObjectRef) -> int:
        """The version up to which the history of a name is known."""
        held = self._objects.get(ref)
        return self._deleted.get(ref, 0) if held is None else _version(held)

    def _remember(self, ref: ObjectRef, version: int) -> None:
        self._deleted.pop(ref, None)
        self._deleted[ref] = version
        if len(self._deleted) > _REMEMBERED:
            del self._deleted[next(iter(self._deleted))]


def doubt(known: AnyCollection[ObjectRef], version: int, listing: Listing) -> str:
    """Why one who knows these objects, told up to this version, does not believe a list at once; empty if they do."""
    if listing.version < version:
        return f"its resourceVersion {listing.version} lies behind {version}, which was seen before"
    missing = sum(ref not in listing.objects for ref in known)
    return f"it lacks {missing} of {len(known)} objects" if missing * 2 > len(known) else ""


def _version(stored: StoredObject) -> int:
    return int(stored.resource_version)
