"""The custom resources this project ships, on a cluster of the tests."""

from __future__ import annotations

from tests.data_plane.support.children import ROOT
from tests.kube.support.cluster import Cluster

FOLDER = ROOT / "deploy" / "crds"


def install_crds(cluster: Cluster) -> None:
    """Apply every file of deploy/crds, and wait until what it defines is served."""
    cluster.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={FOLDER}")
    cluster.kubectl("wait", "--for=condition=Established", "--timeout=30s", f"--filename={FOLDER}")
    # Established is not yet served: at first every list is answered with 429, until which kubectl waits.
    names = cluster.kubectl("get", f"--filename={FOLDER}", "--output=name").stdout.split()
    cluster.kubectl("get", ",".join(name.partition("/")[2] for name in names), "--all-namespaces")
