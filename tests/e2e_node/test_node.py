"""A node is one: pods run, Services lead to them under their names, the kubelet measures them, and nothing gets out."""

from __future__ import annotations

import re
import time
from functools import partial

import pytest

from tests.support.kube.cluster import Cluster
from tests.support.node import errand, seed
from tests.support.node.clients import Clients
from tests.support.node.components import ProxyMode
from tests.support.node.errand import Ended
from tests.support.node.node import Node
from tests.support.waiting import until_now

QUICK = ("--work=1000",)


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_pods_answer_behind_the_name_of_their_service(node: Node, namespace: str, mode: ProxyMode) -> None:
    node.run_kube_proxy(mode)
    try:
        node.apply(seed.deployment(replicas=2, options=QUICK), seed.service(), namespace=namespace)
        node.await_rollout(f"deployment/{seed.NAME}", namespace)
        name = f"http://{seed.NAME}.{namespace}.svc.cluster.local"
        # That pods are ready is known to kube-proxy within a second.
        answers = partial(errand.run, node, namespace, "--silent", "--fail", name)
        until_now(lambda: answers() == Ended(0, "OK!"), "they answer under the full name")
        with Clients.running(node, namespace, count=2) as clients:
            with clients.calling(f"http://{seed.NAME}", rate=100) as calling:
                time.sleep(3)
            assert calling.seen.total.direct > 20, str(calling.seen)
            assert calling.seen.total.failed == 0, str(calling.seen)
    finally:
        node.run_kube_proxy("nftables")


def test_a_pod_that_ends_is_followed_by_another_under_the_same_name(cluster: Cluster, namespace: str) -> None:
    cluster.apply(seed.deployment(options=QUICK), seed.service(), namespace=namespace)

    def pods() -> set[str]:
        said = cluster.kubectl(
            "get", "pods", f"--namespace={namespace}", f"--selector=run={seed.NAME}", "--output=name"
        )
        return set(said.stdout.split())

    command = ("rollout", "status", f"deployment/{seed.NAME}", f"--namespace={namespace}", "--timeout=3m")
    cluster.kubectl(*command)
    (first,) = pods()
    cluster.kubectl("delete", first, f"--namespace={namespace}", "--wait=true")
    cluster.kubectl(*command)
    assert first not in pods()
    patient = ("--silent", "--retry", "20", "--retry-all-errors")
    assert errand.run(cluster, namespace, *patient, f"http://{seed.NAME}") == Ended(0, "OK!")


def test_what_pods_use_is_measured(node: Node, namespace: str) -> None:
    node.install("metrics-server")
    try:
        node.apply(seed.deployment(options=QUICK), namespace=namespace)

        def measured() -> bool:
            with node.client() as client:
                answer = client.get(f"/apis/metrics.k8s.io/v1beta1/namespaces/{namespace}/pods")
            return answer.is_success and bool(answer.json()["items"])

        until_now(measured, "metrics-server has measured the pod", within=120)
        said = node.kubectl("top", "pods", f"--namespace={namespace}").stdout
        assert re.search(rf"^{seed.NAME}-\S+ +\d+m +\d+Mi", said, re.MULTILINE), said
    finally:
        # Where there is one, the chart brings none.
        node.uninstall("metrics-server")


def test_nothing_that_a_pod_sends_leaves_the_node(node: Node, namespace: str) -> None:
    """TEST-NET-1 (RFC 5737) is nowhere; what matters is who says so, and that it is at once."""
    refused = 7
    ended = errand.run(node, namespace, "--silent", "--show-error", "--max-time", "20", "http://192.0.2.1")
    assert ended.code == refused, ended.said
