"""A cluster that somebody else runs, named by a kubeconfig, as a place for the tests."""

from __future__ import annotations

import json
import secrets
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.kube.cluster import Cluster
from tests.support.kube.namespaces import MADE_BY_TESTS
from tests.support.waiting import until_now
from tests.tools import binaries

VALID_FOR = "4h"
"""How long the tests may take; a cluster may grant less."""


@contextmanager
def existing_cluster(kubeconfig: Path, folder: Path) -> Iterator[Cluster]:
    """The cluster, seen by an administrator who is a service account in a namespace of our own and leaves with it.

    However the kubeconfig authenticates, the tests then have a token, as everything in a cluster does. The kubeconfig
    must name the cluster's certificate authority.
    """

    def kubectl(*arguments: str, said: str | None = None) -> str:
        command = [str(binaries.kubectl()), f"--kubeconfig={kubeconfig}", *arguments]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120, input=said)
        return done.stdout

    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    (cluster,) = (one["cluster"] for one in config["clusters"])
    ca = cluster.get("certificate-authority-data")
    assert ca, f"{kubeconfig} does not say whom to trust: certificate-authority-data is missing"
    name = f"beamlit-tests-{secrets.token_hex(4)}"
    try:
        kubectl("create", "--filename=-", said=json.dumps(administrator(name)))
        token = kubectl("create", "token", "admin", f"--namespace={name}", f"--duration={VALID_FOR}").strip()
        ours = Cluster(folder, cluster["server"], b64decode(ca), token)
        until_now(lambda: _may_do_everything(ours), "the administrator is known to who authorizes")
        yield ours
    finally:
        # Whatever becomes of the namespace, nobody has all rights any more.
        kubectl("delete", "clusterrolebinding", name, "--ignore-not-found")
        kubectl("delete", "namespace", name, "--wait=false", "--ignore-not-found")


def administrator(name: str) -> dict[str, Any]:
    """A service account that may do everything, in a namespace of this name: what a run that is killed leaves.

    Each has the label by which it is removed (`python -m tests` says how).
    """
    metadata, account = {"name": name, "labels": MADE_BY_TESTS}, {"kind": "ServiceAccount", "name": "admin"}
    rbac = "rbac.authorization.k8s.io"
    role = {"apiGroup": rbac, "kind": "ClusterRole", "name": "cluster-admin"}
    bound = {"roleRef": role, "subjects": [{**account, "namespace": name}]}
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata},
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "admin", "namespace": name}},
            {"apiVersion": f"{rbac}/v1", "kind": "ClusterRoleBinding", "metadata": metadata, **bound},
        ],
    }


def _may_do_everything(cluster: Cluster) -> bool:
    review = {"spec": {"resourceAttributes": {"verb": "*", "group": "*", "resource": "*"}}}
    with cluster.client() as client:
        answer = client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=review)
    return bool(answer.raise_for_status().json()["status"]["allowed"])
