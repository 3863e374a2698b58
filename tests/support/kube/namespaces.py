"""A namespace of its own for each test, and nothing left of it.

Of the four dozen resources that live in namespaces a test writes a few. Which, etcd knows: where it is the tests' own,
its keys are asked for, and only those resources are deleted.
"""

from __future__ import annotations

import secrets
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.http import plain_http_now
from tests.support.kube.cluster import Cluster

ROOT = "/registry/"
"""Where an API server keeps everything: its option --etcd-prefix, by default."""
DISCOVERY = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")
)
"""What is asked for: before 1.30 there is the second of these versions alone. Both are read alike."""


MADE_BY_TESTS = {"beamlit.com/made-by": "tests"}
"""The label of what a run that is killed leaves on a cluster that goes on."""


@contextmanager
def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a new namespace, which is deleted afterwards with all it holds."""
    name = f"test-{secrets.token_hex(4)}"
    metadata = {"name": name, "labels": MADE_BY_TESTS}
    with cluster.client() as client:
        client.post("/api/v1/namespaces", json={"metadata": metadata}).raise_for_status()
    try:
        yield name
    finally:
        with cluster.client() as client:
            client.delete(f"/api/v1/namespaces/{name}").raise_for_status()
            if not cluster.etcd_url:
                _empty(client, name, None)
            elif held := _held(cluster.etcd_url, name):
                _empty(client, name, held)
                if _held(cluster.etcd_url, name):  # Of a resource that is not called in etcd as in its path.
                    _empty(client, name, None)
            if not cluster.namespaces_end_by_themselves:
                _finalize(client, name)


def _held(etcd: str, namespace: str) -> frozenset[str]:
    """Name the resources of which there are objects in a namespace, as the keys of etcd do; groups are named, too.

    Keys are such as /registry/leases/NAMESPACE/NAME and /registry/GROUP/modeldeployments/NAMESPACE/NAME.
    """
    every = {"key": _base64(ROOT), "range_end": _base64(ROOT[:-1] + chr(ord(ROOT[-1]) + 1)), "keys_only": True}
    with plain_http_now() as client:
        answer = client.post(f"{etcd}/v3/kv/range", json=every).raise_for_status()
    keys = (b64decode(one["key"]).decode().split("/") for one in answer.json().get("kvs", ()))
    return frozenset(word for key in keys if namespace in key[:-1] for word in key[: key.index(namespace)])


def _base64(text: str) -> str:
    return b64encode(text.encode()).decode()


def _empty(client: httpx.Client, namespace: str, held: frozenset[str] | None) -> None:
    """Delete all objects of a namespace now, so that the next test does not see them; nobody else clears finalizers.

    Of these resources, or of all.
    """
    for path in namespaced_resources(client):
        group, resource = path.rsplit("/", 1)
        if held is not None and resource not in held:
            continue
        collection = f"{group}/namespaces/{namespace}/{resource}"
        deleted = _delete(client, collection)
        # A resource that came or went with a custom resource definition since it was discovered.
        if deleted.status_code in (404, 405):
            continue
        for item in deleted.raise_for_status().json().get("items", ()):
            if item["metadata"].get("finalizers"):
                _clear_finalizers(client, f"{collection}/{item['metadata']['name']}")


def _delete(client: httpx.Client, path: str) -> httpx.Response:
    """Delete now: no kubelet ends a Pod. A custom resource that is new answers 429 for a moment."""
    for _ in range(100):
        answer = client.delete(path, params={"gracePeriodSeconds": 0})
        if answer.status_code != 429:
            break
        time.sleep(0.1)
    return answer


def _clear_finalizers(client: httpx.Client, path: str) -> None:
    nothing = '{"metadata":{"finalizers":null}}'
    cleared = client.patch(path, content=nothing, headers={"Content-Type": "application/merge-patch+json"})
    # Somebody else may have done so.
    if cleared.status_code != 404:
        cleared.raise_for_status()


def _finalize(client: httpx.Client, namespace: str) -> None:
    empty: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}, "spec": {}}
    client.put(f"/api/v1/namespaces/{namespace}/finalize", json=empty).raise_for_status()


def namespaced_resources(client: httpx.Client) -> Iterator[str]:
    """The paths of all resources that live in namespaces, such as /apis/apps/v1/deployments."""
    for root in "/api", "/apis":
        for group in client.get(root, headers={"Accept": DISCOVERY}).raise_for_status().json()["items"]:
            name = group["metadata"].get("name")
            preferred = group["versions"][0]
            for resource in preferred.get("resources", ()):
                if resource["scope"] == "Namespaced" and "deletecollection" in resource["verbs"]:
                    yield "/".join(filter(None, (root, name, preferred["version"], resource["resource"])))
