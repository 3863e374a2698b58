"""A pod that runs one command to its end."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Any

from tests.support.kube.cluster import Cluster
from tests.support.node.images import CURL_IMAGE
from tests.support.waiting import until_now


@dataclass(frozen=True, slots=True)
class Ended:
    """How it ended, and all that it said, on standard output and standard error."""

    code: int
    said: str


def run(cluster: Cluster, namespace: str, *command: str, image: str = CURL_IMAGE, within: float = 120) -> Ended:
    """Run a command of an image in a pod of its own. What is attached to a pod may miss its end, or see it twice."""
    name = f"errand-{secrets.token_hex(4)}"
    container = {"name": "main", "image": image, "imagePullPolicy": "IfNotPresent", "args": list(command)}
    spec = {"containers": [container], "restartPolicy": "Never", "automountServiceAccountToken": False}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}, namespace=namespace)
    path = f"/api/v1/namespaces/{namespace}/pods/{name}"
    with cluster.client() as client:

        def end() -> dict[str, Any] | None:
            containers = client.get(path).raise_for_status().json()["status"].get("containerStatuses", ())
            ended: dict[str, Any] | None = next((one["state"].get("terminated") for one in containers), None)
            return ended

        until_now(end, f"{' '.join(command)} in {namespace} ends", within)
        ended = end()
        said = client.get(f"{path}/log").raise_for_status().text
        client.delete(path, params={"gracePeriodSeconds": 0}).raise_for_status()
    assert ended
    return Ended(ended["exitCode"], said)
