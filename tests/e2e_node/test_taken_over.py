"""What clients of a Service notice while it is taken over and given back: nothing.

Each client opens a connection for each request, so kube-proxy decides anew each time. Real pods, a real kube-proxy, our
chart with our images.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.support.node import platform, seed
from tests.support.node.clients import Calls, Clients
from tests.support.node.components import ProxyMode
from tests.support.node.helm import Release
from tests.support.node.node import Node
from tests.support.node.our_images import have_our_images
from tests.support.node.takeover import EVERYWHERE, FrontedModel
from tests.support.waiting import until_now

pytestmark = pytest.mark.timeout(900)

URL = f"http://{seed.NAME}"
RATE = 100.0
SYSTEM = "beamlit-system"


@pytest.fixture(scope="module")
def release(node: Node) -> Iterator[Release]:
    """The product, for models in every namespace, with the platform as its remote backend."""
    have_our_images(node)
    platform.install(node)
    with Release.installed(node, SYSTEM, *EVERYWHERE) as release:
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
    assert calling.seen.total.local > 250, str(calling.seen)
    assert calling.seen.total.direct > 250, str(calling.seen)
    assert set(model.slices()) == {"endpointslice-controller.k8s.io"}


def none_failed(calls: Calls) -> None:
    print(f"\n{calls}")
    assert calls.total.failed == 0, str(calls)
