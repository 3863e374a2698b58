"""The custom resources this project ships, on a cluster of the tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx
import yaml

from controller.install.crd import definitions
from tests.support.kube.cluster import Cluster
from tests.support.kube.definitions import DEFINITIONS, delete_definitions
from tests.support.kube.namespaces import namespaced_resources
from tests.support.processes import ROOT
from tests.support.waiting import until_now
from tests.tools.binaries import numbers

FOLDER = ROOT / "deploy" / "crds"


def install_crds(cluster: Cluster) -> None:
    """Apply every file of deploy/crds, and wait until what it defines is served."""
    ours = [yaml.load(file.read_text(), yaml.CSafeLoader) for file in sorted(FOLDER.glob("*.yaml"))]
    apply_definitions(cluster, *ours)
    with cluster.client() as client:
        until_now(lambda: all(_established(client, one) for one in ours), "the definitions are established")
        # Established is not yet served: at first every list is answered with 429, and kubectl knows no such resource.
        paths = set(map(_path_of, ours))
        until_now(lambda: all(client.get(path).status_code == httpx.codes.OK for path in paths), "they are served")
        until_now(lambda: paths <= set(namespaced_resources(client)), "they are discovered")


def apply_definitions(cluster: Cluster, *ours: Mapping[str, Any]) -> None:
    """Apply definitions, in the way that this version of Kubernetes has.

    As `kubectl apply --server-side --force-conflicts` does, which takes a second of CPU for it.
    """
    if not knows_field_paths(cluster):
        manifests = {"apiVersion": "v1", "kind": "List", "items": ours}
        cluster.kubectl("apply", "--validate=warn", "--filename=-", input=json.dumps(manifests))
        return
    with cluster.client() as client:
        for one in ours:
            answer = client.patch(
                f"{DEFINITIONS}/{one['metadata']['name']}",
                params={"fieldManager": "kubectl", "force": "true", "fieldValidation": "Strict"},
                headers={"Content-Type": "application/apply-patch+yaml"},
                content=json.dumps(one),
            )
            assert answer.is_success, answer.text


def knows_field_paths(cluster: Cluster) -> bool:
    """Whether a rule of a definition may have a fieldPath: an older one passes over it if told to, and applies by the
    client alone."""
    return version_of(cluster) >= (1, 28)


def version_of(cluster: Cluster) -> tuple[int, ...]:
    """The version of Kubernetes that answers: major, minor and patch."""
    with cluster.client() as client:
        return numbers(client.get("/version").raise_for_status().json()["gitVersion"])


def remove_crds(cluster: Cluster) -> None:
    """Take away what may have been applied, with all objects there are of it."""
    delete_definitions(cluster, definitions())


def _established(client: httpx.Client, definition: Mapping[str, Any]) -> bool:
    # Too new, it has no conditions.
    answer = client.get(f"{DEFINITIONS}/{definition['metadata']['name']}")
    conditions = answer.raise_for_status().json().get("status", {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)


def _path_of(definition: Mapping[str, Any]) -> str:
    """Where all objects of it are, such as /apis/GROUP/VERSION/PLURAL."""
    spec = definition["spec"]
    (version,) = spec["versions"]
    return f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"
