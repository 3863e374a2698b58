"""What is read here of the Gateway API: the definition of ReferenceGrants, as far as an API server needs it."""

from __future__ import annotations

from typing import Any

from controller.api.registry import REFERENCE_GRANT
from tests.support.kube.cluster import Cluster
from tests.support.kube.definitions import delete_definitions
from tests.support.kube.namespaces import DISCOVERY
from tests.support.waiting import until_now


def install_reference_grants(cluster: Cluster, *served: str) -> None:
    """Let the API server have ReferenceGrants in these versions; it keeps them in the first that there ever was."""
    cluster.apply(_definition(served))
    cluster.kubectl("wait", "--for=condition=Established", f"crd/{REFERENCE_GRANT.resource}", "--timeout=3m")
    # Established is not yet served, nor told to kubectl; and it has been so since the first version.
    until_now(lambda: set(served) <= _served(cluster), f"{REFERENCE_GRANT.kind} is served in {', '.join(served)}")


def remove_reference_grants(cluster: Cluster) -> None:
    """Take the definition away, and with it all objects of the kind."""
    delete_definitions(cluster, (REFERENCE_GRANT.resource,))


def _served(cluster: Cluster) -> set[str]:
    """The versions in which the API server has and names the kind."""
    found = set()
    with cluster.client() as client:
        groups = client.get("/apis", headers={"Accept": DISCOVERY}).raise_for_status().json()["items"]
        for group in groups:
            if group["metadata"].get("name") != REFERENCE_GRANT.group:
                continue
            for one in group["versions"]:
                named = {resource["resource"] for resource in one.get("resources", ())}
                path = f"/apis/{REFERENCE_GRANT.group}/{one['version']}/{REFERENCE_GRANT.plural}"
                if REFERENCE_GRANT.plural in named and client.get(path).is_success:
                    found.add(one["version"])
    return found


def _definition(served: tuple[str, ...]) -> dict[str, Any]:
    reference = {"type": "object", "additionalProperties": {"type": "string"}}
    references = {"type": "array", "items": reference, "minItems": 1, "maxItems": 16}
    spec = {"type": "object", "required": ["from", "to"], "properties": {"from": references, "to": references}}
    schema = {"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": REFERENCE_GRANT.resource,
            # The API server asks for it in groups of *.k8s.io.
            "annotations": {"api-approved.kubernetes.io": "unapproved, a part of it for tests"},
        },
        "spec": {
            "group": REFERENCE_GRANT.group,
            "scope": "Namespaced",
            "names": {"kind": REFERENCE_GRANT.kind, "plural": REFERENCE_GRANT.plural, "singular": "referencegrant"},
            "versions": [
                {"name": version, "served": version in served, "storage": version == "v1beta1", "schema": schema}
                for version in ("v1beta1", "v1")
            ],
        },
    }
