"""The chart on a node: installed, upgraded and rolled back under load, with a new authority; gone without a trace."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tests.support.beamlit import BEAMLIT
from tests.support.chart import CHART, INSTALL, NAMESPACE, RELEASE
from tests.support.kube.cluster import Cluster
from tests.support.kube.crds import remove_crds
from tests.support.node import errand, seed
from tests.support.node.clients import Clients
from tests.support.node.errand import Ended
from tests.support.node.helm import Release, helm
from tests.support.node.node import Node
from tests.support.node.our_images import have_our_images
from tests.support.node.takeover import FrontedModel
from tests.support.objects import a_model
from tests.support.processes import run
from tests.support.waiting import until_now

QUICK = ("--work=1000",)
_BY_KUBERNETES = {"configmap/kube-root-ca.crt", "serviceaccount/default"}
_PASSING = {"events", "events.events.k8s.io", "pods.metrics.k8s.io"}


@pytest.fixture(autouse=True)
def nothing_installed(node: Node) -> Iterator[None]:
    """Before and after there are no definitions: they outlive a release, and belong to its namespace."""

    def is_gone() -> bool:
        return node.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "--output=name").stdout == ""

    remove_crds(node)
    until_now(is_gone, f"the namespace {NAMESPACE} of the test before is gone", within=120)
    yield
    remove_crds(node)


@pytest.fixture(scope="module")
def images(node: Node) -> None:
    """The images of the chart, on the node."""
    have_our_images(node)


@pytest.mark.timeout(1200)
def test_a_release_comes_changes_and_goes_and_no_request_fails(
    node: Node, images: None, namespace: str, record_property: pytest.RecordProperty
) -> None:
    places = (f"allowedNamespaces={{{namespace}}}", f"config.namespaces={namespace}")
    with Release.installed(node, NAMESPACE, *places):
        node.apply(seed.deployment(replicas=2, options=QUICK), seed.service(), namespace=namespace)
        node.await_rollout(f"deployment/{seed.NAME}", namespace)
        node.apply(model_at_the_gateway(), namespace=namespace)
        until_ready(node, namespace)
        gateway = f"http://beamlit-gateway.{NAMESPACE}:10000"
        with Clients.running(node, namespace) as clients, clients.calling(gateway, rate=50) as calling:
            # All pods of all programs are replaced.
            roll = (f"{name}.podAnnotations.rolled=once" for name in ("controller", "xdsServer", "gateway"))
            sets = (f"--set={one}" for one in (*roll, "certificates.clients={gateway/edge-1}"))
            where = (f"--namespace={NAMESPACE}", "--wait", "--timeout=10m")
            helm(node, "upgrade", RELEASE, CHART, *where, "--reuse-values", *sets, within=660)
            replace_authority(node)
            helm(node, "rollback", RELEASE, "1", *where, within=660)
            until_ready(node, namespace)
        record_property("upgrade, new authority, rollback", str(calling.seen))
        assert calling.seen.requests > 500  # of ten seconds: however fast, it takes longer
        assert calling.seen.total.failed == 0, str(calling.seen)
        said = node.kubectl("-n", NAMESPACE, "logs", "deployment/beamlit-certs").stdout
        assert '"level": "error"' not in said
        helm(node, "uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait", "--timeout=5m")
        until_now(lambda: left_behind(node) == set(), f"nothing is left but {left_behind(node)}", within=120)
        cluster_wide = node.kubectl("get", "clusterroles,clusterrolebindings", "--output=name").stdout
        assert "beamlit" not in cluster_wide
        assert "modeldeployments" in node.kubectl("get", "crds", "--output=name").stdout
        assert node.kubectl("-n", namespace, "get", "modeldeployment", "--output=name").stdout.count(seed.NAME) == 1


@pytest.mark.timeout(900)
def test_an_uninstall_gives_back_a_service_that_is_taken_over_and_no_request_fails(
    node: Node, images: None, namespace: str, record_property: pytest.RecordProperty
) -> None:
    """By the hook of the chart, with the rights that it has: the model stays, and nobody is there to let it go."""
    model = FrontedModel(node, namespace)
    places = (f"allowedNamespaces={{{namespace}}}", f"config.namespaces={namespace}")
    with Release.installed(node, NAMESPACE, *places), let_go(node, namespace):
        model.deploy()
        before = model.service
        model.take_over()
        with Clients.running(node, namespace) as clients, clients.calling(f"http://{seed.NAME}", rate=50) as calling:
            time.sleep(3)
            helm(node, "uninstall", RELEASE, f"--namespace={NAMESPACE}", "--wait", "--timeout=5m")
            assert model.service == before
            time.sleep(3)
        record_property("uninstall", str(calling.seen))
        assert calling.seen.total.failed == 0, str(calling.seen)
        assert calling.seen.total.local, "the gateway answered before"
        assert calling.seen.total.direct, "the pods answer afterwards"
        assert set(model.slices()) == {"endpointslice-controller.k8s.io"}
        of_model = ("-n", namespace, "get", "modeldeployment", seed.NAME)
        assert node.kubectl(*of_model, "--output=jsonpath={.metadata.name}").stdout == seed.NAME
        assert node.kubectl(*of_model, "--output=jsonpath={.metadata.finalizers}").stdout == ""
        services = node.kubectl("-n", namespace, "get", "services", "--output=name").stdout.split()
        assert services == [f"service/{seed.NAME}"]


@contextmanager
def let_go(node: Node, namespace: str) -> Iterator[None]:
    """Delete the model in the end, whether anybody is left who lets it go or not: its definition waits for that."""
    try:
        yield
    finally:
        model = ("modeldeployment", seed.NAME, f"--namespace={namespace}")
        node.kubectl("delete", *model, "--ignore-not-found", "--wait=false")
        with suppress(subprocess.CalledProcessError):  # It is gone.
            node.kubectl("patch", *model, "--type=merge", '--patch={"metadata":{"finalizers":null}}')


def model_at_the_gateway() -> dict[str, Any]:
    """The model of the quick start, called at the gateway."""
    model = a_model(seed.NAME).fronting(seed.NAME, 80).raw
    metadata = {"name": model["metadata"]["name"]}
    return {**model, "metadata": metadata, "spec": {**model["spec"], "frontend": "Gateway"}}


def until_ready(cluster: Cluster, namespace: str) -> None:
    """Wait until the model is served."""
    command = ("wait", f"modeldeployment/{seed.NAME}", f"--namespace={namespace}", "--for=condition=Ready")
    cluster.kubectl(*command, "--timeout=3m")


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


@pytest.mark.timeout(1200)
def test_the_command_of_the_tutorial_installs_everything_as_it_is_written(node: Node, images: None) -> None:
    oauth = "config.defaultRemoteBackend.authConfig.oauthConfig"
    values = ("installMetricServer=true", "beamlitApiToken=bWU6aHVzaC1odXNo")
    values = (*values, f"{oauth}.clientId=me", f"{oauth}.clientSecret=hush-hush")
    try:
        said = helm(node, "install", RELEASE, CHART, "--wait", "--timeout=5m", *(f"--set={one}" for one in values))
        assert "kubectl -n default get modeldeployments" in said

        def measured() -> bool:
            with node.client() as client:
                answer = client.get("/apis/metrics.k8s.io/v1beta1/nodes")
            return answer.is_success and bool(answer.json()["items"])

        until_now(measured, "metrics-server measures", within=120)
        assert "hush" not in node.kubectl("get", "configmap", "beamlit-config", "--output=json").stdout
        assert_well(node, "--wait", "--timeout=2m")
        shell = ("exec", "deployment/beamlit-xds-server", "--")
        assert node.kubectl(*shell, "cat", "/etc/beamlit/credentials/clientSecret").stdout == "hush-hush"
        assert "hush" not in node.kubectl(*shell, "env").stdout
    finally:
        helm(node, "uninstall", RELEASE, "--ignore-not-found", "--wait", "--timeout=5m")


@pytest.mark.timeout(1200)
def test_one_apply_of_install_yaml_gives_a_system_that_serves(node: Node, images: None) -> None:
    assert_well(node, "--pre")
    node.kubectl("apply", f"--filename={INSTALL}")
    try:
        for name in ("certs", "xds-server", "controller", "gateway"):
            node.await_rollout(f"deployment/beamlit-{name}", NAMESPACE, within=300)
        node.apply(seed.deployment(options=QUICK), seed.service(), model_at_the_gateway())
        until_ready(node, "default")
        patient = ("--silent", "--retry", "20", "--retry-all-errors")
        gateway = f"http://beamlit-gateway.{NAMESPACE}:10000"
        assert errand.run(node, "default", *patient, gateway) == Ended(0, "OK!")
        assert_well(node, "--wait", "--timeout=2m")
        node.kubectl("scale", "deployment/beamlit-gateway", f"--namespace={NAMESPACE}", "--replicas=0")
        ended = checked(node)
        assert ended.returncode == 1, ended.stdout
        assert "beamlit-gateway" in ended.stdout
    finally:
        ours = (f"deployment/{seed.NAME}", f"service/{seed.NAME}", f"modeldeployment/{seed.NAME}")
        node.kubectl("delete", *ours, "--ignore-not-found", "--wait=false")
        but_for_definitions = "--selector=app.kubernetes.io/component!=crds"
        node.kubectl("delete", f"--filename={INSTALL}", but_for_definitions, "--ignore-not-found", "--wait=false")


def checked(node: Node, *options: str) -> subprocess.CompletedProcess[str]:
    """What `beamlit check` says of the cluster."""
    command = (BEAMLIT, "check", f"--kubeconfig={node.kubeconfig}", *options)
    return run(command, capture_output=True, text=True, timeout=180)


def assert_well(node: Node, *options: str) -> None:
    """Assert that `beamlit check` finds nothing to be done."""
    ended = checked(node, *options)
    assert ended.returncode == 0, f"{ended.stdout}{ended.stderr}"
