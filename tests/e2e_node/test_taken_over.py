"""What clients of a Service notice while it is taken over, given back, and whatever happens to the gateway: nothing.

Each client opens a connection for each request, so kube-proxy decides anew each time. Real pods, a real kube-proxy, our
chart with our images.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import pytest

from tests.support.node import helm, platform, seed
from tests.support.node.clients import Calls, Clients, calling_from_outside
from tests.support.node.components import ProxyMode
from tests.support.node.helm import Release
from tests.support.node.kinds import OTHER_PORT, ServiceKinds
from tests.support.node.node import Node
from tests.support.node.our_images import have_our_images
from tests.support.node.takeover import EVERYWHERE, FrontedModel, owners_chart
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(900)

URL = f"http://{seed.NAME}"
RATE = 100.0
ENOUGH = 100
"""Calls, where there is time for five times as many."""
SYSTEM = "beamlit-system"
KUBE_PROXY_GATHERS_FOR = 1.0
"""Seconds: kube-proxy's minSyncPeriod, by default."""


@pytest.fixture(scope="module")
def release(node: Node) -> Iterator[Release]:
    """The product, for models in every namespace and of both IP families, with the platform as its remote backend."""
    have_our_images(node)
    platform.install(node)
    with Release.installed(node, SYSTEM, *EVERYWHERE, "gateway.dualStack=true") as release:
        yield release


@pytest.fixture
def model(node: Node, release: Release, namespace: str) -> Iterator[FrontedModel]:
    """A model with two pods and a Service, that no ModelDeployment knows of yet."""
    model = FrontedModel(node, namespace)
    model.deploy()
    yield model
    # Before its namespace goes: while a Service is taken over, a finalizer keeps the object.
    node.kubectl(
        "delete", "modeldeployment", seed.NAME, "--ignore-not-found", f"--namespace={namespace}", "--wait=false"
    )
    until_now(lambda: not model.is_taken_over, "the Service is given back")


@pytest.fixture
def clients(node: Node, namespace: str) -> Iterator[Clients]:
    with Clients.running(node, namespace) as clients:
        yield clients


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_no_request_fails_while_a_service_is_taken_over_and_given_back(
    node: Node, model: FrontedModel, clients: Clients, mode: ProxyMode
) -> None:
    before = model.service
    node.run_kube_proxy(mode)
    try:
        with clients.calling(URL, RATE) as calling:
            time.sleep(2)
            for _ in range(2):
                model.take_over()
                time.sleep(5)
                assert model.service != before
                model.give_back()
                assert model.service == before
            time.sleep(5)
    finally:
        node.run_kube_proxy("nftables")
    none_failed(calling.seen)
    assert calling.seen.total.local > ENOUGH, str(calling.seen)
    assert calling.seen.total.direct > ENOUGH, str(calling.seen)
    assert set(model.slices()) == {"endpointslice-controller.k8s.io"}


@pytest.fixture
def kinds(node: Node, release: Release, namespace: str) -> Iterator[ServiceKinds]:
    """A Service of every kind, that no ModelDeployment knows of yet."""
    kinds = ServiceKinds(node, namespace)
    kinds.deploy()
    yield kinds
    kinds.give_back()


def test_no_request_fails_while_services_of_every_kind_are_taken_over_and_given_back(kinds: ServiceKinds) -> None:
    """Pods call by each way, and who is outside of the cluster calls the node."""
    before, ways, outside = kinds.services(), kinds.ways(), kinds.node_ports()
    with Clients.running(kinds.node, kinds.namespace) as clients, ExitStack() as all_of_it:
        calling = {
            way: all_of_it.enter_context(replace(clients, pods=(pod,)).calling(url, RATE / 10))
            for pod, (way, url) in zip(cycle(clients.pods), ways.items(), strict=False)
        }
        for way, url in outside.items():
            calling[f"{way} from outside"] = all_of_it.enter_context(calling_from_outside(url, RATE / 10))
        time.sleep(2)
        kinds.take_over()
        time.sleep(5)
        kinds.give_back()
        assert kinds.services() == before
        time.sleep(3)
    seen = {way: one.seen for way, one in calling.items()}
    words = "\n".join(f"{way:<40} {one}" for way, one in seen.items())
    print(f"\n{words}")
    assert {way: one.total.failed for way, one in seen.items()} == dict.fromkeys(seen, 0), words
    assert all(one.total.direct > 20 for one in seen.values()), words
    by_gateway = {way for way, one in seen.items() if one.total.local > 20}
    assert seen.keys() - by_gateway == {OTHER_PORT}, words
    assert seen[OTHER_PORT].total.local == 0, words


def test_no_request_fails_in_iptables_mode_while_the_owner_upgrades_and_the_gateway_is_rolled_out(
    node: Node, release: Release, model: FrontedModel, clients: Clients, tmp_path: Path
) -> None:
    """Both at once, since a rollout takes a minute. Each alone is played below, in nftables mode."""
    chart, where = owners_chart(tmp_path), f"--namespace={model.namespace}"
    node.kubectl("delete", "service", seed.NAME, where)
    helm.helm(node, "install", "owner", chart, where)
    before = release.pods("gateway")
    node.run_kube_proxy("iptables")
    try:
        model.take_over()
        with clients.calling(URL, RATE) as calling:
            node.kubectl("rollout", "restart", f"deployment/{helm.GATEWAY}", f"--namespace={release.namespace}")
            for version in ("two", "three"):
                helm.helm(node, "upgrade", "owner", chart, f"--set=version={version}", where)
                until_now(lambda: model.is_taken_over, "what the owner reset is narrowed again")
                time.sleep(4)
            release.await_rollout(helm.GATEWAY)
            model.await_taken_over()
            time.sleep(2)
    finally:
        node.run_kube_proxy("nftables")
    none_failed(calling.seen)
    assert not set(before) & set(release.pods("gateway"))
    assert model.service["metadata"]["labels"]["version"] == "three"
    assert calling.seen.total.local > ENOUGH, str(calling.seen)


def test_no_request_fails_while_the_gateway_is_rolled_out(
    release: Release, model: FrontedModel, clients: Clients
) -> None:
    model.take_over()
    before = release.pods("gateway")
    with clients.calling(URL, RATE) as calling:
        time.sleep(2)
        release.roll_out(helm.GATEWAY)
        time.sleep(2)
    assert not set(before) & set(release.pods("gateway"))
    none_failed(calling.seen)
    assert calling.seen.total.direct == 0, calling.seen


def test_no_request_fails_while_the_owner_upgrades_the_service_with_helm(
    node: Node, release: Release, model: FrontedModel, clients: Clients, tmp_path: Path
) -> None:
    chart = owners_chart(tmp_path)
    node.kubectl("delete", "service", seed.NAME, f"--namespace={model.namespace}")
    helm.helm(node, "install", "owner", chart, f"--namespace={model.namespace}")
    model.take_over()
    with clients.calling(URL, RATE) as calling:
        for version in ("two", "three"):
            helm.helm(node, "upgrade", "owner", chart, f"--set=version={version}", f"--namespace={model.namespace}")
            until_now(lambda: model.is_taken_over, "what the owner reset is narrowed again")
            time.sleep(4)
        model.await_taken_over()
    none_failed(calling.seen)
    assert model.service["metadata"]["labels"]["version"] == "three"
    assert calling.seen.total.local > ENOUGH, calling.seen


def test_no_request_fails_while_the_owner_works_with_kubectl(
    node: Node, model: FrontedModel, clients: Clients, tmp_path: Path
) -> None:
    model.take_over()
    where, service, deployment = f"--namespace={model.namespace}", f"service/{seed.NAME}", f"deployment/{seed.NAME}"
    manifest = tmp_path / "service.json"

    def write(version: str) -> None:
        labels = {**seed.LABELS, "version": version}
        manifest.write_text(json.dumps({**seed.service(), "metadata": {"name": seed.NAME, "labels": labels}}))

    def edit(old: str, new: str) -> None:
        editor = tmp_path / "editor"
        editor.write_text(f'#!/bin/sh\nsed -i "s/version: {old}/version: {new}/" "$1"\n')
        editor.chmod(0o700)
        helm.run(node, "env", f"KUBE_EDITOR={editor}", "kubectl", "edit", service, where)

    def apply(version: str, *how: str) -> None:
        write(version)
        node.kubectl("apply", f"--filename={manifest}", where, *how)

    steps: tuple[tuple[str, Callable[[], object]], ...] = (
        ("applied", lambda: apply("applied")),
        ("edited", lambda: edit("applied", "edited")),
        ("served", lambda: apply("served", "--server-side", "--force-conflicts")),
    )
    with clients.calling(URL, RATE) as calling:
        for version, step in steps:
            step()
            assert model.service["metadata"]["labels"]["version"] == version
            until_now(lambda: model.is_taken_over, "what the owner reset is narrowed again")
            time.sleep(2)
        for command in (("scale", "--replicas=3"), ("rollout", "restart"), ("scale", "--replicas=1")):
            node.kubectl(*command, deployment, where)
            node.await_rollout(deployment, model.namespace)
            time.sleep(2)
        model.await_taken_over()
    none_failed(calling.seen)
    assert calling.seen.total.local > ENOUGH, str(calling.seen)


@pytest.mark.parametrize("component", ["controller", "xds-server"])
def test_no_request_fails_when_a_program_of_the_control_plane_is_killed(
    node: Node, release: Release, model: FrontedModel, clients: Clients, component: str
) -> None:
    model.take_over()
    with clients.calling(URL, RATE) as calling:
        time.sleep(2)
        for pod in release.pods(component):
            node.kill_pod(pod, release.namespace)
        time.sleep(5)
        release.await_rollout(helm.CONTROLLER if component == "controller" else helm.XDS)
    none_failed(calling.seen)
    assert calling.seen.total.direct == 0, calling.seen


def test_a_killed_gateway_costs_what_kubernetes_itself_loses(
    node: Node, release: Release, model: FrontedModel, clients: Clients
) -> None:
    """Until kube-proxy knows that a pod is dead it sends connections there, also of the gateway's own Service."""
    model.take_over()
    own_service = f"http://{helm.GATEWAY}.{release.namespace}:{model.serving_port}"
    with clients.calling(URL, RATE) as ours, clients.calling(own_service, RATE) as kubernetes:
        time.sleep(2)
        node.kill_pod(release.pods("gateway")[0], release.namespace)
        time.sleep(10)
        release.await_rollout(helm.GATEWAY)
    print(f"\na gateway killed: {ours.seen}\nby the gateway's own Service: {kubernetes.seen}")
    lost, kubernetes_lost = ours.seen.total.failed, kubernetes.seen.total.failed
    words = (str(ours.seen), str(kubernetes.seen))
    if kubernetes_lost == 0:
        assert lost == 0, words
    # What is known of the gateway's own slice is copied to ours. kube-proxy may have taken the one in by then, and
    # takes in nothing more for a second (minSyncPeriod). Connections are spread by chance over two pods.
    expected = kubernetes_lost + RATE / 2 * KUBE_PROXY_GATHERS_FOR
    assert lost <= expected + 4.5 * expected**0.5, words
    assert all(refused(error) for _, error in ours.seen.failures), str(ours.seen)


def refused(error: str) -> bool:
    """Whether no process was there to accept its connection, or it had just died."""
    return any(words in error for words in ("connection refused", "connection reset", "EOF"))


def none_failed(calls: Calls) -> None:
    print(f"\n{calls}")
    assert calls.total.failed == 0, str(calls)
