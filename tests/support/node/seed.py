"""The model of the original's quick start: the Deployment and the Service php-apache, as its README has them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from tests.support.node.images import MODEL_IMAGE

NAME = "php-apache"
_SOME = {"requests": {"cpu": "50m"}}
LABELS: Mapping[str, str] = MappingProxyType({"run": NAME})


def deployment(*, replicas: int = 1, options: tuple[str, ...] = (), resources: bool = True) -> dict[str, Any]:
    """The Deployment; `options` are told to its server (tests/tools/pods/model)."""
    container: dict[str, Any] = {
        "name": NAME,
        "image": MODEL_IMAGE.removesuffix(":latest"),
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 80}],
        "args": list(options),
        "readinessProbe": {"httpGet": {"path": "/", "port": 80}, "periodSeconds": 1, "timeoutSeconds": 10},
        "resources": {"limits": {"cpu": "500m"}, "requests": {"cpu": "200m"}} if resources else _SOME,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": NAME},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": dict(LABELS)},
            "template": {
                "metadata": {"labels": dict(LABELS)},
                "spec": {"containers": [container], "automountServiceAccountToken": False},
            },
        },
    }


def model(frontend: str = "Takeover") -> dict[str, Any]:
    """A ModelDeployment of it that offloads nothing while there are pods, with the default remote backend."""
    return {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": NAME},
        "spec": {
            "model": NAME,
            "environment": "production",
            "frontend": frontend,
            "modelSourceRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": NAME},
            "serviceRef": {"name": NAME, "targetPort": 80},
            "offloadingConfig": {},
        },
    }


def service() -> dict[str, Any]:
    """The Service."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": NAME, "labels": dict(LABELS)},
        "spec": {"ports": [{"port": 80}], "selector": dict(LABELS)},
    }
