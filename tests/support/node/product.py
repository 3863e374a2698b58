"""The product on a node: both programs and the gateway as pods, with the roles and certificates that the docs name.

This is what docs/cluster.md tells a user to do by hand; what the Helm chart does is tried by tests of the chart.
"""

from __future__ import annotations

import contextlib
import json
from base64 import b64encode
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.support.kube.cluster import Cluster
from tests.support.node.our_images import CONTROLLER_IMAGE, GATEWAY_IMAGE
from tests.support.processes import ROOT
from tests.support.tls import Certificates
from tests.support.waiting import until_now

NAMESPACE = "beamlit-system"
CONTROLLER, XDS, GATEWAY = "beamlit-controller", "beamlit-xds", "beamlit-gateway"
_TLS = ("tls.crt", "tls.key", "ca.crt")
_WITHIN = 120.0
_RBAC = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Product:
    """An installation in the namespace `beamlit-system`."""

    cluster: Cluster
    folder: Path

    @classmethod
    @contextlib.contextmanager
    def installed(cls, cluster: Cluster, folder: Path, gateways: int = 2) -> Iterator[Product]:
        """One that is ready to serve: two replicas of the controller, two xDS servers, so many gateways."""
        product = cls(cluster, folder)
        try:
            product._install(gateways)
            for name in (CONTROLLER, XDS, GATEWAY):
                product.await_rollout(name)
            yield product
        finally:
            product._remove()

    def await_rollout(self, name: str, within: float = _WITHIN) -> None:
        """Wait until all pods of one of the three are the newest ones, and ready."""
        command = ("rollout", "status", f"deployment/{name}", f"--namespace={NAMESPACE}", "--timeout=20s")

        def rolled_out() -> bool:
            with contextlib.suppress(Exception):
                self.cluster.kubectl(*command)
                return True
            return False

        until_now(rolled_out, f"{name} is rolled out", within)

    def roll_out(self, name: str) -> None:
        """Replace all pods of one of the three, a few at a time, and wait until that is done."""
        self.cluster.kubectl("rollout", "restart", f"deployment/{name}", f"--namespace={NAMESPACE}")
        self.await_rollout(name)

    def pods(self, name: str) -> tuple[str, ...]:
        """The names of the pods of one of the three that are not ending."""
        said = self.cluster.kubectl(
            "get", "pods", f"--namespace={NAMESPACE}", f"--selector=app={name}", "--output=json"
        ).stdout
        items = json.loads(said)["items"]
        return tuple(item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"])

    def logs(self, name: str) -> str:
        """The last lines of all pods of one of the three."""
        command = ("logs", f"--namespace={NAMESPACE}", f"--selector=app={name}", "--tail=60", "--prefix")
        return self.cluster.kubectl(*command).stdout

    def _install(self, gateways: int) -> None:
        self.cluster.kubectl("apply", "--filename", ROOT / "deploy" / "crds")
        self.cluster.kubectl("apply", "--filename", ROOT / "deploy" / "rbac")
        self.cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self.folder.mkdir(exist_ok=True)
        names = (XDS, f"{XDS}.{NAMESPACE}", f"{XDS}.{NAMESPACE}.svc")
        certificates = Certificates.make(self.folder, server_names=names)
        self.cluster.apply(
            *(_secret(name, certificates.files(name)) for name in ("xds-server", "controller", "gateway")),
            *_accounts(),
            _controller(),
            _xds_server(),
            _gateway(gateways),
            _service(XDS, {"xds": 18000, "reports": 18001}),
            _service(GATEWAY, {"admin": 19000}),
            namespace=NAMESPACE,
        )

    def _remove(self) -> None:
        self.cluster.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")
        names = (f"clusterrolebinding/{role}" for role in _roles())
        self.cluster.kubectl("delete", *names, "--ignore-not-found")


def _roles() -> Mapping[str, str]:
    """The cluster roles of deploy/rbac that are bound everywhere, and whose they are."""
    roles = [
        raw["metadata"]["name"]
        for file in sorted((ROOT / "deploy" / "rbac").glob("*.yaml"))
        for raw in yaml.safe_load_all(file.read_text())
        if raw["kind"] == "ClusterRole"
    ]
    return {role: "beamlit-xds-server" if "xds" in role else CONTROLLER for role in roles}


def _accounts() -> Iterator[dict[str, Any]]:
    for account in (CONTROLLER, "beamlit-xds-server"):
        yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}
    for role, account in _roles().items():
        home = role.endswith("-home")
        yield {
            "apiVersion": f"{_RBAC}/v1",
            "kind": "RoleBinding" if home else "ClusterRoleBinding",
            "metadata": {"name": role},
            "roleRef": {"apiGroup": _RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": NAMESPACE}],
        }


def _controller() -> dict[str, Any]:
    tls = ("--xds-ca=/tls/ca.crt", "--xds-cert=/tls/tls.crt", "--xds-key=/tls/tls.key")
    where = (f"--xds-service={NAMESPACE}/{XDS}", f"--gateway-service={NAMESPACE}/{GATEWAY}")
    container = _container(CONTROLLER_IMAGE, ("controller", *where, *tls), 8081)
    return _deployment(CONTROLLER, 2, "controller", {**_on_tls(container), "serviceAccountName": CONTROLLER})


def _xds_server() -> dict[str, Any]:
    tls = ("--tls-cert=/tls/tls.crt", "--tls-key=/tls/tls.key", "--client-ca=/tls/ca.crt")
    where = (f"--gateway-service={NAMESPACE}/{GATEWAY}",)
    container = _container(CONTROLLER_IMAGE, ("xds-server", *where, *tls), 19000)
    return _deployment(XDS, 2, "xds-server", {**_on_tls(container), "serviceAccountName": "beamlit-xds-server"})


def _gateway(replicas: int) -> dict[str, Any]:
    """Twice the delay of a slow kube-proxy, and half a minute for what is in flight."""
    tls = ("--xds-ca=/tls/ca.crt", "--xds-cert=/tls/tls.crt", "--xds-key=/tls/tls.key")
    drain = ("--drain-delay-seconds=5", "--drain-seconds=25")
    container = _container(
        GATEWAY_IMAGE, (f"--xds-address={XDS}:18000", *tls, *drain, "--", "--concurrency", "1"), 19000
    )
    spec = {**_on_tls(container), "terminationGracePeriodSeconds": 40, "automountServiceAccountToken": False}
    return _deployment(GATEWAY, replicas, "gateway", spec)


def _container(image: str, arguments: tuple[str, ...], health: int) -> dict[str, Any]:
    return {
        "name": "main",
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "args": list(arguments),
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": health}, "periodSeconds": 1, "timeoutSeconds": 3},
        "securityContext": {
            "runAsNonRoot": True,
            "readOnlyRootFilesystem": True,
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "tls", "mountPath": "/tls", "readOnly": True}, {"name": "tmp", "mountPath": "/tmp"}],
    }


def _on_tls(container: dict[str, Any]) -> dict[str, Any]:
    return {"containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}]}


def _deployment(name: str, replicas: int, secret: str, pod: dict[str, Any]) -> dict[str, Any]:
    labels = {"app": name}
    pod["volumes"].append({"name": "tls", "secret": {"secretName": f"beamlit-{secret}-tls"}})
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _service(name: str, ports: dict[str, int]) -> dict[str, Any]:
    listed = [{"name": port, "port": number} for port, number in ports.items()]
    spec = {"selector": {"app": name}, "ports": listed}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def _secret(name: str, files: tuple[Path, Path, Path]) -> dict[str, Any]:
    data = {key: b64encode(file.read_bytes()).decode() for key, file in zip(_TLS, files, strict=True)}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"beamlit-{name}-tls"}, "data": data}
