"""A namespace of its own for each test, and nothing left of it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.support.kube.cluster import Cluster

DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


@contextmanager
def fresh_namespace(cluster: Cluster) -> Iterator[str]:
    """The name of a new namespace, which is deleted afterwards with all it holds."""
    name = f"test-{secrets.token_hex(4)}"
    with cluster.client() as client:
        client.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()
    try:
        yield name
    finally:
        with cluster.client() as client:
            client.delete(f"/api/v1/namespaces/{name}").raise_for_status()
            _empty(client, name)
            if not cluster.namespaces_end_by_themselves:
                _finalize(client, name)


def _empty(client: httpx.Client, namespace: str) -> None:
    """Delete all objects of a namespace now, so that the next test does not see them; nobody else clears finalizers."""
    for path in _namespaced_resources(client):
        group, resource = path.rsplit("/", 1)
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


def _namespaced_resources(client: httpx.Client) -> Iterator[str]:
    """The paths of all resources that live in namespaces, such as /apis/apps/v1/deployments."""
    for root in "/api", "/apis":
        for group in client.get(root, headers={"Accept": DISCOVERY}).raise_for_status().json()["items"]:
            name = group["metadata"].get("name")
            preferred = group["versions"][0]
            for resource in preferred.get("resources", ()):
                if resource["scope"] == "Namespaced" and "deletecollection" in resource["verbs"]:
                    yield "/".join(filter(None, (root, name, preferred["version"], resource["resource"])))
