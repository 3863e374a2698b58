"""A cluster that somebody else runs, named by a kubeconfig, as a place for the tests."""

from __future__ import annotations

import json
import secrets
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.kube.cluster import Cluster
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

    def kubectl(*arguments: str) -> str:
        command = [str(binaries.kubectl()), f"--kubeconfig={kubeconfig}", *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=60).stdout

    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json"))
    (cluster,) = (one["cluster"] for one in config["clusters"])
    ca = cluster.get("certificate-authority-data")
    assert ca, f"{kubeconfig} does not say whom to trust: certificate-authority-data is missing"
    name = f"beamlit-tests-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    try:
        kubectl("create", "serviceaccount", "admin", f"--namespace={name}")
        kubectl("create", "clusterrolebinding", name, "--clusterrole=cluster-admin", f"--serviceaccount={name}:admin")
        token = kubectl("create", "token", "admin", f"--namespace={name}", f"--duration={VALID_FOR}").strip()
        ours = Cluster(folder, cluster["server"], b64decode(ca), token)
        until_now(lambda: _may_do_everything(ours), "the administrator is known to who authorizes")
        yield ours
    finally:
        kubectl("delete", "clusterrolebinding", name, "--ignore-not-found")
        kubectl("delete", "namespace", name, "--wait=false")


def _may_do_everything(cluster: Cluster) -> bool:
    review = {"spec": {"resourceAttributes": {"verb": "*", "group": "*", "resource": "*"}}}
    with cluster.client() as client:
        answer = client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=review)
    return bool(answer.raise_for_status().json()["status"]["allowed"])
