"""A stand-in for the platform, the default remote backend: it answers to its names, over TLS, to who has its token.

The node's CoreDNS leads the names here. The certificate is of `images.authority`, which the product's images believe as
they do those that their base image came with: so nothing has to be configured for a test.
"""

from __future__ import annotations

from base64 import b64encode
from typing import Any

from tests.support.kube.cluster import Cluster
from tests.support.node.images import REMOTE_IMAGE, authority

NAMESPACE = "platform"
CLIENT_ID, CLIENT_SECRET = "seed-client", "seed-secret"
HOSTS = ("run.beamlit.com", "api.beamlit.com")


def install(cluster: Cluster) -> None:
    """Have it in a cluster, in a namespace of its own."""
    certificate = authority().issue_cert(*HOSTS)
    tls = {
        "tls.crt": b"".join(one.bytes() for one in certificate.cert_chain_pems),
        "tls.key": certificate.private_key_pem.bytes(),
    }
    metadata = {"name": "remote", "namespace": NAMESPACE}
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
    cluster.apply(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": metadata,
            "data": {name: b64encode(pem).decode() for name, pem in tls.items()},
        },
        _deployment(metadata),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": metadata,
            "spec": {"selector": {"app": "remote"}, "ports": [{"port": 443}]},
        },
        namespace=NAMESPACE,
    )
    cluster.kubectl("rollout", "status", "deployment/remote", f"--namespace={NAMESPACE}", "--timeout=3m")


def _deployment(metadata: dict[str, str]) -> dict[str, Any]:
    container = {
        "name": "remote",
        "image": REMOTE_IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "args": [f"--client-id={CLIENT_ID}", f"--client-secret={CLIENT_SECRET}"],
        # Or a busy machine gives it nothing.
        "resources": {"requests": {"cpu": "100m"}},
        "readinessProbe": {"tcpSocket": {"port": 443}, "periodSeconds": 1},
        "volumeMounts": [{"name": "tls", "mountPath": "/tls"}],
    }
    pod = {
        "containers": [container],
        "volumes": [{"name": "tls", "secret": {"secretName": "remote"}}],
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
    }
    spec = {
        # Each replica would have a token of its own making.
        "replicas": 1,
        "selector": {"matchLabels": {"app": "remote"}},
        "template": {"metadata": {"labels": {"app": "remote"}}, "spec": pod},
    }
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}
