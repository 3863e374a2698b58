"""The chart on a node: installed, upgraded and rolled back under load, with a new authority; gone without a trace."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.chart import CHART, NAMESPACE, RELEASE, Chart
from tests.support.kube.cluster import Cluster
from tests.support.node import seed
from tests.support.node.clients import Clients
from tests.support.node.node import Node
from tests.support.node.our_images import our_images
from tests.support.objects import a_model
from tests.support.waiting import until_now

QUICK = ("--work=1000",)
PROGRAMS = ("controller", "xds-server", "gateway", "certs")
OURS = ("image.tag=tests", "gateway.image.tag=tests")
_BY_KUBERNETES = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
_PASSING = {"events", "events.events.k8s.io", "pods.metrics.k8s.io"}


class Helm:
    """A release of the chart on a cluster."""

    def __init__(self, chart: Chart, cluster: Cluster, *values: str) -> None:
        self._chart = chart
        self._cluster = cluster
        self._values = values

    def run(self, verb: str, *arguments: object) -> str:
        """Run helm against the cluster."""
        where = (f"--namespace={NAMESPACE}", f"--kubeconfig={self._cluster.kubeconfig}", "--timeout=5m")
        return self._chart.run(verb, RELEASE, *arguments, *where)

    def install(self) -> str:
        """Install it into a namespace of its own, and wait until it is ready."""
        return self.run("install", CHART, "--create-namespace", "--wait", *self._sets())

    def upgrade(self, *values: str) -> str:
        """Upgrade it with other values, and wait until all pods are the new ones."""
        return self.run("upgrade", CHART, "--wait", *self._sets(*values))

    def _sets(self, *values: str) -> tuple[str, ...]:
        return tuple(f"--set={one}" for one in (*self._values, *values))


@pytest.fixture
def helm(chart: Chart, node: Node, namespace: str) -> Iterator[Helm]:
    """A release that serves the models of a namespace; it is not installed yet."""
    for archive in our_images():
        node.import_archive(archive)
    places = (f"allowedNamespaces={{{namespace}}}", f"config.namespaces={namespace}")
    helm = Helm(chart, node, *OURS, *places)
    try:
        yield helm
    finally:
        with contextlib.suppress(Exception):
            helm.run("uninstall", "--no-hooks", "--ignore-not-found")
        node.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait=false")


def test_a_release_comes_changes_and_goes_and_no_request_fails(
    helm: Helm, node: Node, namespace: str, record_property: pytest.RecordProperty
) -> None:
    said = helm.install()
    assert f"kubectl -n {namespace} get modeldeployments" in said
    node.apply(seed.deployment(replicas=2, options=QUICK), seed.service(), namespace=namespace)
    node.await_rollout(f"deployment/{seed.NAME}", namespace)
    node.apply(a_model(seed.NAME).fronting(seed.NAME, 80).raw, namespace=namespace)
    until_ready(node, namespace)
    gateway = f"http://beamlit-gateway.{NAMESPACE}:10000"
    with Clients.running(node, namespace) as clients, clients.calling(gateway, rate=100) as calling:
        # All pods of all programs are replaced.
        roll = (f"{name}.podAnnotations.rolled=once" for name in ("controller", "xdsServer", "gateway"))
        helm.upgrade(*roll, "certificates.clients={gateway/edge-1}")
        replace_authority(node)
        helm.run("rollback", "1", "--wait")
        until_ready(node, namespace)
    record_property("upgrade, new authority, rollback", str(calling.seen))
    assert calling.seen.requests > 2000
    assert calling.seen.total.failed == 0, calling.seen
    assert node.kubectl("-n", NAMESPACE, "logs", "deployment/beamlit-certs").stdout.count('"level": "error"') == 0
    node.kubectl("-n", namespace, "delete", "modeldeployment", seed.NAME)
    helm.run("uninstall", "--wait")
    until_now(lambda: left_behind(node) == set(), f"nothing is left: {left_behind(node)}", within=120)
    cluster_wide = node.kubectl("get", "clusterroles,clusterrolebindings", "--output=name").stdout
    assert "beamlit" not in cluster_wide
    assert "modeldeployments" in node.kubectl("get", "crds", "--output=name").stdout


def until_ready(cluster: Cluster, namespace: str) -> None:
    """Wait until the model is served."""
    command = ("wait", f"modeldeployment/{seed.NAME}", f"--namespace={namespace}", "--for=condition=Ready")
    cluster.kubectl(*command, "--timeout=50s")


def replace_authority(node: Node) -> None:
    """Make another authority known, have it sign, and see that pods have what it signed."""
    certs = ("beamlit", "certs", f"--secrets={NAMESPACE}/beamlit", f"--xds-service={NAMESPACE}/beamlit-xds")
    certs = (*certs, "--client=gateway/edge-1")
    node.kubectl("-n", NAMESPACE, "exec", "deployment/beamlit-certs", "--", *certs, "--new-ca")
    until_mounted(node)
    node.kubectl("-n", NAMESPACE, "exec", "deployment/beamlit-certs", "--", *certs)
    until_mounted(node)


def until_mounted(node: Node) -> None:
    """Wait until the kubelet has brought the newest certificates into the pods."""
    for name in ("controller", "xds-server", "gateway"):
        secret = node.kubectl(
            "-n", NAMESPACE, "get", "secret", f"beamlit-{name}-tls", "--output=jsonpath={.data.tls\\.crt}"
        )
        newest = secret.stdout

        def is_there(name: str = name, newest: str = newest) -> bool:
            read = "import base64; print(base64.b64encode(open('/etc/beamlit/tls/tls.crt', 'rb').read()).decode())"
            python = ("python3", "-c", read)
            return (
                node.kubectl("-n", NAMESPACE, "exec", f"deployment/beamlit-{name}", "--", *python).stdout.strip()
                == newest
            )

        until_now(is_there, f"{name} has its newest certificate", within=180)


def left_behind(cluster: Cluster) -> set[str]:
    """What is in the namespace of the release that Kubernetes itself did not put there."""
    kinds = cluster.kubectl("api-resources", "--namespaced", "--verbs=list", "--output=name").stdout.split()
    listed = ",".join(kind for kind in kinds if kind not in _PASSING)
    found = cluster.kubectl("-n", NAMESPACE, "get", listed, "--output=name", "--ignore-not-found").stdout.split()
    return set(found) - _BY_KUBERNETES


def test_the_tutorial_s_command_installs_metrics_server_and_keeps_the_credential_in_a_file(
    helm: Helm, chart: Chart, node: Node, tmp_path: Path
) -> None:
    oauth = "config.defaultRemoteBackend.authConfig.oauthConfig"
    credentials = (f"{oauth}.clientId=me", f"{oauth}.clientSecret=hush-hush", "beamlitApiToken=bWU6aHVzaC1odXNo")
    insecure = "metricsServer.extraArgs={--kubelet-insecure-tls}"
    Helm(chart, node, *OURS, *credentials, "installMetricServer=true", insecure).install()

    def measured() -> bool:
        with node.client() as client:
            answer = client.get("/apis/metrics.k8s.io/v1beta1/nodes")
        return answer.is_success and bool(answer.json()["items"])

    until_now(measured, "metrics-server measures", within=120)
    config = json.loads(node.kubectl("-n", NAMESPACE, "get", "configmap", "beamlit-config", "--output=json").stdout)
    assert "hush" not in json.dumps(config)
    cat = ("exec", "deployment/beamlit-xds-server", "--", "cat", "/etc/beamlit/credentials/clientSecret")
    assert node.kubectl("-n", NAMESPACE, *cat).stdout == "hush-hush"
    environment = ("exec", "deployment/beamlit-xds-server", "--", "env")
    assert "hush" not in node.kubectl("-n", NAMESPACE, *environment).stdout
