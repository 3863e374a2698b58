"""The custom resources this project ships, on a cluster of the tests."""

from __future__ import annotations

import time

import httpx

from controller.install.crd import definitions
from tests.support.kube.cluster import Cluster
from tests.support.kube.definitions import delete_definitions
from tests.support.processes import ROOT
from tests.support.waiting import Deadline
from tests.tools.binaries import numbers

FOLDER = ROOT / "deploy" / "crds"
ESTABLISHED_WITHIN = 30.0
"""Seconds; it takes a tenth of one."""


def install_crds(cluster: Cluster) -> None:
    """Apply every file of deploy/crds, and wait until what it defines is served."""
    apply_definitions(cluster)
    names = cluster.kubectl("get", f"--filename={FOLDER}", "--output=name").stdout.split()
    resources = [name.partition("/")[2] for name in names]
    deadline = Deadline(time.monotonic(), ESTABLISHED_WITHIN)
    with cluster.client() as client:
        # `kubectl wait` gives up on a definition that is too new to have any conditions.
        while not all(_established(client, resource) for resource in resources):
            late = deadline.has_passed(time.monotonic())
            assert not late, f"not established after {ESTABLISHED_WITHIN} s: {resources}"
            time.sleep(0.05)
    # Established is not yet served: at first every list is answered with 429, until which kubectl waits.
    cluster.kubectl("get", ",".join(resources), "--all-namespaces")


def apply_definitions(cluster: Cluster, text: str | None = None) -> None:
    """Apply every file of deploy/crds, or other definitions, in the way that this version of Kubernetes has."""
    way = ("--server-side", "--force-conflicts") if knows_field_paths(cluster) else ("--validate=warn",)
    cluster.kubectl("apply", *way, "--filename=-" if text else f"--filename={FOLDER}", input=text)


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


def _established(client: httpx.Client, resource: str) -> bool:
    answer = client.get(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{resource}")
    conditions = answer.raise_for_status().json().get("status", {}).get("conditions") or ()
    return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)
