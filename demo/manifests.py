"""The YAML that a cluster would hold for one model, as Kubernetes writes it. Pure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import yaml

from demo.credentials import CLIENT_ID, SERVER_NAME, Credentials

MODEL = "chat"
NAMESPACE = "default"
REMOTE_PREFIX = f"/{NAMESPACE}/models/{MODEL}"
"""What `/$workspace/models/$model` becomes."""
PLACES = 4
"""How many requests one replica works on at a time: the servers have so many places, the model says so."""
_AUTHORITY, _CLIENT = "remote-authority", "remote-client"


@dataclass(frozen=True, slots=True)
class Replica:
    """One pod of the model, and whether its readiness probe passes."""

    name: str
    host: str
    port: int
    ready: bool = True


def model_yaml(remote: str, token_url: str) -> str:
    """Return the ModelDeployment; `remote` is the HOST:PORT of the remote backend."""
    oauth = {"clientId": CLIENT_ID, "tokenUrl": token_url, "clientSecretRef": {"name": _CLIENT}}
    return _yaml(
        {
            "apiVersion": "deployment.beamlit.com/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": MODEL, "namespace": NAMESPACE},
            "spec": {
                "model": MODEL,
                "environment": "production",
                "modelSourceRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": MODEL},
                "serviceRef": {"name": MODEL, "targetPort": 8080},
                "offloadingConfig": {
                    "behavior": {"maxRequestsPerReplica": PLACES},
                    "remoteBackend": {
                        "host": remote,
                        "scheme": "https",
                        "pathPrefix": "/$workspace/models/$model",
                        "tls": {"sni": SERVER_NAME, "caRef": {"name": _AUTHORITY}},
                        "authConfig": {"type": "oauth", "oauthConfig": oauth},
                    },
                },
            },
        }
    )


def secrets_yaml(credentials: Credentials) -> str:
    """Return the Secrets that the ModelDeployment names."""
    return _yaml(
        _secret(_AUTHORITY, "ca.crt", credentials.authority),
        _secret(_CLIENT, "clientSecret", credentials.client_secret),
    )


def deployment_yaml(replicas: int) -> str:
    """Return the Deployment, whose readiness probe the product lends."""
    container = {
        "name": "server",
        "image": f"registry.example.com/{MODEL}:1",
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": "http"}, "periodSeconds": 1},
    }
    return _yaml(
        {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": MODEL, "namespace": NAMESPACE},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": {"app": MODEL}},
                "template": {"metadata": {"labels": {"app": MODEL}}, "spec": {"containers": [container]}},
            },
        }
    )


def service_yaml(node_port: int) -> str:
    """Return the Service; clients reach the model on its node port."""
    return _yaml(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": MODEL, "namespace": NAMESPACE},
            "spec": {
                "type": "NodePort",
                "selector": {"app": MODEL},
                "ports": [
                    {"name": "http", "protocol": "TCP", "port": 8080, "targetPort": "http", "nodePort": node_port}
                ],
            },
        }
    )


def slices_yaml(replicas: Sequence[Replica]) -> str:
    """Return the EndpointSlices: one for each port, since the endpoints of a slice share their ports."""
    by_port = groupby(sorted(replicas, key=lambda replica: replica.port), key=lambda replica: replica.port)
    return _yaml(*(_slice(port, tuple(group)) for port, group in by_port))


def _slice(port: int, replicas: Sequence[Replica]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{MODEL}-{port}",
            "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": MODEL},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "protocol": "TCP", "port": port}],
        "endpoints": [
            {
                "addresses": [replica.host],
                "conditions": {"ready": replica.ready, "serving": replica.ready, "terminating": False},
                "targetRef": {"kind": "Pod", "name": replica.name, "namespace": NAMESPACE},
            }
            for replica in replicas
        ],
    }


def _secret(name: str, key: str, value: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "type": "Opaque",
        "data": {key: base64.b64encode(value.encode()).decode()},
    }


def _yaml(*documents: dict[str, Any]) -> str:
    return yaml.safe_dump_all(documents, sort_keys=False)
