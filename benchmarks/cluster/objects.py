"""What a user has in the cluster for one model. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from controller.api.resources.model import OVERRIDE
from controller.gateway.bootstrap import HostPort
from tests.support.kube.site import CONTROLLER_OF_SLICES
from tests.support.objects import KubeObject, a_model, a_service, a_slice

_TARGET_PORT = 8000


@dataclass(frozen=True, slots=True)
class Servers:
    """Where the replicas of every model answer, and the remote backend of all of them."""

    replicas: tuple[HostPort, ...]
    remote: HostPort


def model_name(number: int) -> str:
    """Name a model by its number."""
    return f"model-{number:04}"


def objects_of(number: int, servers: Servers) -> Sequence[KubeObject]:
    """List what there is of one model, the model itself last.

    A port belongs to an EndpointSlice: there is one for each replica, since they differ by their ports alone.
    """
    name = model_name(number)
    slices = (
        a_slice(name, str(index)).port(replica.port).ready(replica.host).written_by(CONTROLLER_OF_SLICES)
        for index, replica in enumerate(servers.replicas)
    )
    model = a_model(name).fronting(name, 80).offloading(percentage=50).with_remote(str(servers.remote))
    service = a_service(name).port(80, target=_TARGET_PORT).selecting(run=name)
    return (service, *slices, KubeObject(_workload(name)), model)


def override(away: int) -> dict[str, Any]:
    """Build the change of one annotation that sends so many percent of a model away: a JSON merge patch."""
    return {"metadata": {"annotations": {OVERRIDE: f"remote={away}"}}}


def route_away(away: int) -> dict[str, Any]:
    """Build the change of a status by hand that says the same: a JSON merge patch."""
    return {"status": {"route": {"split": {"local": 100 - away, "remote": away}}}}


def _workload(name: str) -> dict[str, Any]:
    """Build a Deployment as the API server takes it, with a readiness probe: Envoy asks for the same path."""
    labels = {"run": name}
    container = {
        "name": "model",
        "image": "model",
        "ports": [{"containerPort": _TARGET_PORT}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": _TARGET_PORT}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
