"""The YAML that a test saves, as Kubernetes writes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tests.support.data_plane.backends import Backend

SEED = """\
apiVersion: deployment.beamlit.com/v1alpha1
kind: ModelDeployment
metadata:
  name: php-apache
spec:
  model: "php-apache"
  environment: "production"
  modelSourceRef:
    apiVersion: apps/v1
    kind: Deployment
    name: php-apache
    namespace: default
  serviceRef:
    name: php-apache
    namespace: default
    targetPort: 80
  offloadingConfig:
    behavior:
      percentage: 50
    metrics:
      - type: Resource
        resource:
          name: cpu
          target:
            type: Utilization
            averageUtilization: 90
"""
"""The ModelDeployment of the original's tutorial, as it stands there."""


def model(
    name: str, remote: Backend | None, annotations: Mapping[str, str] | None = None, namespace: str = "default"
) -> dict[str, Any]:
    """A ModelDeployment in front of the Service of the same name."""
    backend = {"remoteBackend": {"host": f"{remote.host}:{remote.port}"}} if remote else {}
    return {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name, "namespace": namespace, "annotations": dict(annotations or {})},
        "spec": {
            "model": name,
            "modelSourceRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
            "serviceRef": {"name": name, "targetPort": 80},
            "offloadingConfig": {"behavior": {"percentage": 50}, **backend},
        },
    }


def service(name: str, node_port: int, namespace: str = "default") -> dict[str, Any]:
    """A Service with one port, 80."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"ports": [{"port": 80, "nodePort": node_port}]},
    }


def endpoints(name: str, *replicas: Backend, ready: bool = True, namespace: str = "default") -> dict[str, Any]:
    """The EndpointSlice of a Service."""
    conditions = {"ready": ready, "serving": ready, "terminating": False}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{name}-1",
            "namespace": namespace,
            "labels": {"kubernetes.io/service-name": name},
        },
        "addressType": "IPv4",
        "ports": [{"port": 8000}],
        "endpoints": [{"addresses": [replica.host], "conditions": conditions} for replica in replicas],
    }


def text_of(*documents: dict[str, Any]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False)
