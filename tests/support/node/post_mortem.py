"""What a cluster has to say after a test has failed on it, before what the test made is removed."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

from tests.support.kube.cluster import Cluster

_KINDS = "pods,deployments,services,endpointslices,jobs"
_OURS = "--selector=app.kubernetes.io/name"
_LINES = 200


def post_mortem(cluster: Cluster) -> str:
    """What there is, what happened, each model as it stands, and what our programs logged."""
    return "\n".join(_chapters(cluster))


def _chapters(cluster: Cluster) -> Iterator[str]:
    everywhere = ("--all-namespaces", "--ignore-not-found")
    yield _said(cluster, "get", _KINDS, *everywhere, "--output=wide")
    yield _said(cluster, "get", "events", *everywhere, "--sort-by=.lastTimestamp")
    yield _said(cluster, "get", "modeldeployments", *everywhere, "--output=yaml")
    template = "{range .items[*]}{.metadata.namespace} {.metadata.name}{'\\n'}{end}"
    pods = _said(cluster, "get", "pods", *everywhere, _OURS, f"--output=jsonpath={template}")
    for line in pods.splitlines():
        match line.split():
            case [namespace, name] if name.startswith("beamlit"):
                yield f"\n# {namespace}/{name}"
                yield _said(cluster, "logs", name, f"--namespace={namespace}", f"--tail={_LINES}")


def _said(cluster: Cluster, *command: str) -> str:
    try:
        return cluster.kubectl(*command).stdout
    except subprocess.SubprocessError as error:
        return f"{' '.join(command)}: {error}: {getattr(error, 'stderr', '')}"
