"""A Kubernetes API as a test sees it: where it is, whom to trust, who asks."""

from __future__ import annotations

import json
import ssl
import subprocess
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import httpx

from tests.support.waiting import until_now
from tests.tools import binaries


@dataclass(frozen=True, slots=True)
class User:
    """Somebody who may ask: a bearer token, and the kubeconfig that carries it."""

    token: str
    kubeconfig: Path


class Cluster:
    """An API server that answers somewhere. What it is told to keep goes into `folder`, its kubeconfig too."""

    namespaces_end_by_themselves = True
    """Whether a controller finalizes deleted namespaces; without one, whoever deletes a namespace has to."""
    etcd_url = ""
    """Where its etcd answers whoever asks; empty for one that is not of the tests."""

    def __init__(self, folder: Path, url: str, ca: bytes, token: str) -> None:
        self.folder = folder
        self.url = url
        self.ca = ca
        self.token = token
        self.kubeconfig = self._kubeconfig("admin", token)

    @cached_property
    def trust(self) -> ssl.SSLContext:
        """Trusts this server and no other."""
        return ssl.create_default_context(cadata=self.ca.decode())

    def client(self, timeout: float = 120.0) -> httpx.Client:
        """An HTTP client of the administrator, for what kubectl would be too slow for."""
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.Client(base_url=self.url, headers=headers, verify=self.trust, trust_env=False, timeout=timeout)

    def kubectl(
        self,
        *arguments: object,
        input: str | None = None,  # noqa: A002, as subprocess.run calls it
        user: User | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run kubectl as the administrator, or as somebody else; CalledProcessError with its words if it fails."""
        kubeconfig = user.kubeconfig if user else self.kubeconfig
        options = (f"--kubeconfig={kubeconfig}", f"--cache-dir={self.folder}/kubectl-cache")
        command = [str(binaries.kubectl()), *options, *map(str, arguments)]
        try:
            return subprocess.run(command, check=True, input=input, capture_output=True, text=True, timeout=240)
        except subprocess.CalledProcessError as error:
            error.add_note(error.stderr)
            raise

    def apply(self, *objects: dict[str, Any], namespace: str = "default") -> None:
        """Apply objects as manifests."""
        manifests = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.kubectl("apply", f"--namespace={namespace}", "--filename=-", input=json.dumps(manifests))

    def user(self, namespace: str, name: str, *rules: dict[str, Any]) -> User:
        """A service account that may do what the rules of a Role say, in its own namespace and nowhere else."""
        metadata = {"name": name, "namespace": namespace}
        account = {"kind": "ServiceAccount", "metadata": metadata}
        role = {"kind": "Role", "metadata": metadata, "rules": list(rules)}
        binding = {
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", **metadata}],
        }
        rbac = "rbac.authorization.k8s.io/v1"
        with self.client() as client:
            for group, version, raw in (("api", "v1", account), ("apis", rbac, role), ("apis", rbac, binding)):
                path = f"/{group}/{version}/namespaces/{namespace}/{str(raw['kind']).lower()}s/{name}"
                client.patch(
                    path,
                    params={"fieldManager": "tests", "force": "true"},
                    headers={"Content-Type": "application/apply-patch+yaml"},
                    content=json.dumps({"apiVersion": version, **raw}),
                ).raise_for_status()
        return self.service_account(namespace, name)

    def until_granted(self, namespace: str, name: str, rule: Mapping[str, Any]) -> None:
        """Wait until a service account may do what a rule says: who authorizes learns of a Role a moment later."""
        attributes = {
            "namespace": namespace,
            "group": rule["apiGroups"][-1],
            "resource": rule["resources"][-1],
            "verb": rule["verbs"][-1],
        }
        review = {"spec": {"user": f"system:serviceaccount:{namespace}:{name}", "resourceAttributes": attributes}}
        with self.client() as client:

            def may() -> bool:
                answer = client.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review)
                return bool(answer.raise_for_status().json()["status"]["allowed"])

            until_now(may, f"{name} may {rule['verbs'][-1]} {rule['resources'][-1]}")

    def service_account(self, namespace: str, name: str) -> User:
        """A service account that exists, with a token of an hour."""
        with self.client() as client:
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
            token: str = client.post(path, json={}).raise_for_status().json()["status"]["token"]
        return User(token, self._kubeconfig(f"{namespace}-{name}", token))

    def _kubeconfig(self, name: str, token: str) -> Path:
        file = self.folder / f"{name}.kubeconfig"
        file.write_text(kubeconfig(self.url, self.ca, token))
        return file


def kubeconfig(url: str, ca: bytes, token: str) -> str:
    """The text of a kubeconfig file. JSON is YAML."""
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "test", "cluster": {"server": url, "certificate-authority-data": b64encode(ca).decode()}}
            ],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
            "current-context": "test",
        }
    )
