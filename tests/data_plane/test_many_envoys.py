"""Several Envoys on one control plane, which is killed and comes back; and what only those with the token get."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest_asyncio
from envoy.config.cluster.v3.cluster_pb2 import Cluster
from envoy.extensions.transport_sockets.tls.v3.secret_pb2 import Secret
from envoy.extensions.transport_sockets.tls.v3.tls_pb2 import UpstreamTlsContext

from tests.support.data_plane.backends import Backends
from tests.support.data_plane.plane import Plane
from tests.support.data_plane.product import LOCAL_CLUSTER, PROMPT, Product
from tests.support.envoy import Envoy
from tests.support.load import Traffic, closed_loop
from tests.support.network import Network
from tests.support.timing import PATIENT
from tests.support.waiting import until
from xds_server.snapshot.snapshot import CLUSTER, SECRET, Resource

TIMING = replace(PATIENT, folder=PROMPT)
RECEIVED = "cluster.xds_server.upstream_cx_rx_bytes_total"
# What Envoy counts when it takes in a cluster, a listener, a route or endpoints that it did not have.
CHANGES = (
    "^(cluster_manager.cluster_(added|modified|removed)|listener_manager.listener_(added|modified|removed)"
    "|http.*rds.*config_reload|cluster.*membership_change|cluster.model.*update_success)$"
)


@pytest_asyncio.fixture
async def product(backends: Backends, tmp_path: Path) -> AsyncIterator[Product]:
    product = Product(backends, tmp_path, timing=TIMING)
    try:
        await product.start()
        for node_id in ("first", "second"):
            await product.join(node_id)
        yield product
    finally:
        await product.stop()


async def requests_of(envoy: Envoy) -> int:
    """How many requests an Envoy got from clients."""
    counts = await envoy.stats("^http.model/default/chat.downstream_rq_total$")
    return sum(counts.values())


async def test_envoys_share_the_port_and_outlive_the_control_plane(product: Product) -> None:
    new_connections = Traffic(keepalive=False)
    with_it = await closed_loop(product.url, clients=16, requests=500, traffic=new_connections)

    product.kill()
    without_it = await closed_loop(product.url, clients=16, requests=500, traffic=new_connections)
    with product.backends.killed(*product.backends.local):
        without_anything = await closed_loop(product.url, clients=16, requests=500, traffic=new_connections)

    assert (with_it.errors, without_it.errors, without_anything.errors) == ({}, {}, {})
    assert without_anything.summary.remote == 500
    assert min([await requests_of(envoy) for envoy in product.envoys]) > 100


async def test_a_restarted_control_plane_sends_nothing_that_is_known(product: Product) -> None:
    first_time = {envoy.node_id: await envoy.stat(RECEIVED) for envoy in product.envoys}
    before = {envoy.node_id: await envoy.stats(CHANGES) for envoy in product.envoys}

    product.kill()
    await _connected(product, 0)
    await product.start()
    await _connected(product, 1)
    again = {envoy.node_id: await envoy.stat(RECEIVED) - first_time[envoy.node_id] for envoy in product.envoys}
    after = {envoy.node_id: await envoy.stats(CHANGES) for envoy in product.envoys}

    assert after == before
    assert max(again.values()) < min(first_time.values()) / 10

    # What is new does arrive, and nothing else.
    product.list_replicas(product.backends.local[:2])
    for envoy in product.envoys:

        async def two_are_left(envoy: Envoy = envoy) -> bool:
            return await envoy.stat(f"cluster.{LOCAL_CLUSTER}.membership_total") == 2

        await until(two_are_left, f"{envoy.node_id} has two replicas")
        changed = _changed(before[envoy.node_id], await envoy.stats(CHANGES))
        assert {name.rpartition(".")[2] for name in changed} == {"membership_change", "update_success"}
        assert await envoy.stat(RECEIVED) - first_time[envoy.node_id] < first_time[envoy.node_id]


async def _connected(product: Product, state: int) -> None:
    for envoy in product.envoys:

        async def is_so(envoy: Envoy = envoy) -> bool:
            return await envoy.stat("control_plane.connected_state") == state

        await until(is_so, f"{envoy.node_id} has connected_state {state}", within=30)


def _changed(before: Mapping[str, int], after: Mapping[str, int]) -> set[str]:
    return {name for name, value in after.items() if before.get(name, 0) != value}


async def test_secrets_go_to_those_with_the_token_only(network: Network, backends: Backends, tmp_path: Path) -> None:
    async with Plane(network, backends, tmp_path).running() as plane:
        member = await plane.join("member")
        stranger = await plane.join("stranger", token="some other token")
        plane.publish_also(_secret(), _cluster_that_needs_it())

        async def member_has_it() -> bool:
            return "credential" in _names(await member.config("dynamic_active_secrets"))

        async def stranger_asked_for_it() -> bool:
            return "credential" in _names(await stranger.config("dynamic_warming_secrets"))

        await until(member_has_it, "the member gets the secret")
        await until(stranger_asked_for_it, "the stranger asks for the secret")

        assert _names(await stranger.config("dynamic_active_secrets")) == set()
        assert {client.node_id: client.authorised for client in plane.clients} == {"member": True, "stranger": False}


def _secret() -> Resource:
    secret = Secret(name="credential")
    secret.validation_context.SetInParent()
    return Resource.of(SECRET, secret.name, secret.SerializeToString(deterministic=True))


def _cluster_that_needs_it() -> Resource:
    tls = UpstreamTlsContext()
    config = tls.common_tls_context.validation_context_sds_secret_config
    config.name = "credential"
    config.sds_config.ads.SetInParent()
    config.sds_config.resource_api_version = 2  # V3
    cluster = Cluster(name="needs-a-secret")
    cluster.transport_socket.name = "tls"
    cluster.transport_socket.typed_config.Pack(tls)
    body = cluster.SerializeToString(deterministic=True)
    return Resource.of(CLUSTER, cluster.name, body, [_secret().key])


def _names(configs: list[dict[str, object]]) -> set[object]:
    return {config["name"] for config in configs}
