"""Where each kind lives in the Kubernetes API."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from controller.store.objects import ObjectRef


@dataclass(frozen=True, slots=True)
class ApiResource:
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

    def path_of(self, ref: ObjectRef) -> str:
        """The path of one object."""
        return f"{self.collection(ref.namespace)}/{ref.name}"


# Releases of helm and tokens of service accounts are nobody's credentials for a backend, and the bulk of most clusters'
# Secrets: they never come here.
_CREDENTIALS = "type!=helm.sh/release.v1,type!=kubernetes.io/service-account-token"

RESOURCES: Mapping[str, ApiResource] = MappingProxyType(
    {
        resource.kind: resource
        for resource in (
            ApiResource("ModelDeployment", "deployment.beamlit.com", "v1alpha1", "modeldeployments"),
            ApiResource("ToolDeployment", "deployment.beamlit.com", "v1alpha1", "tooldeployments"),
            ApiResource("Policy", "authorization.beamlit.com", "v1alpha1", "policies"),
            ApiResource("Service", "", "v1", "services"),
            ApiResource("Secret", "", "v1", "secrets", _CREDENTIALS),
            ApiResource("EndpointSlice", "discovery.k8s.io", "v1", "endpointslices"),
            ApiResource("Deployment", "apps", "v1", "deployments"),
            ApiResource("StatefulSet", "apps", "v1", "statefulsets"),
            ApiResource("Event", "events.k8s.io", "v1", "events"),
            ApiResource("Lease", "coordination.k8s.io", "v1", "leases"),
        )
    }
)
