"""Whom the server lets in over TLS: every method is closed to who has no certificate, or somebody else's."""

from __future__ import annotations

import contextlib

import grpc
import pytest
from envoy.config.core.v3 import base_pb2
from envoy.service.discovery.v3 import discovery_pb2
from envoy.service.load_stats.v3 import lrs_pb2
from grpc_health.v1 import health, health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from controller.api.timing import StreamTiming
from tests.protocol.test_hostile_connections import HANDSHAKES, connected, still_open
from tests.support.protocol.calls import ADS, DISCOVERY, OK, outcome
from tests.support.protocol.envoy_resources import model
from tests.support.protocol.xds_client import TOKEN, Served
from tests.support.tls import Certificates
from tests.support.waiting import PATIENCE, until
from xds_server.snapshot.snapshot import CLUSTER, SECRET, Resource
from xds_server.stream.identity import ClientTable, parse_binding
from xds_server.stream.server import reflection, services

NODE = base_pb2.Node(id="envoy-1")
NODE.metadata["beamlit_token"] = TOKEN
SOTW = discovery_pb2.DiscoveryRequest(node=NODE, type_url=CLUSTER)
DELTA = discovery_pb2.DeltaDiscoveryRequest(node=NODE, type_url=CLUSTER)
REFLECTION = reflection_pb2.ServerReflectionRequest(list_services="")
HEALTH = health_pb2.HealthCheckRequest()
SECRETS = (Resource.of(SECRET, "ns/secret", b""),)


def per_type(service: str, plural: str) -> dict[str, object]:
    """The three methods of one type. The type is the service's, so none is said."""
    name = f"/{DISCOVERY}.{service}"
    sotw, delta = discovery_pb2.DiscoveryRequest(node=NODE), discovery_pb2.DeltaDiscoveryRequest(node=NODE)
    return {f"{name}/Stream{plural}": sotw, f"{name}/Delta{plural}": delta, f"{name}/Fetch{plural}": sotw}


# Every method that the server has, and what a client says to it first.
METHODS: dict[str, object] = {
    f"/{ADS}/StreamAggregatedResources": SOTW,
    f"/{ADS}/DeltaAggregatedResources": DELTA,
    **per_type("cluster.v3.ClusterDiscoveryService", "Clusters"),
    **per_type("endpoint.v3.EndpointDiscoveryService", "Endpoints"),
    **per_type("listener.v3.ListenerDiscoveryService", "Listeners"),
    **per_type("route.v3.RouteDiscoveryService", "Routes"),
    **per_type("route.v3.ScopedRoutesDiscoveryService", "ScopedRoutes"),
    **per_type("secret.v3.SecretDiscoveryService", "Secrets"),
    "/envoy.service.load_stats.v3.LoadReportingService/StreamLoadStats": lrs_pb2.LoadStatsRequest(node=NODE),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": REFLECTION,
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": REFLECTION,
    "/grpc.health.v1.Health/Check": HEALTH,
    "/grpc.health.v1.Health/List": HEALTH,
    "/grpc.health.v1.Health/Watch": HEALTH,
}
OF_A_NODE = tuple(name for name in METHODS if name.startswith("/envoy.service."))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    folder = tmp_path_factory.mktemp("tls")
    made = Certificates.make(folder / "ours", "gateway/envoy-1", "gateway/envoy-2", "sidecar/a", "sidecar/b/proxy")
    Certificates.make(folder / "theirs")
    (folder / "theirs" / "gateway").rename(folder / "ours" / "of-another-authority")
    made.signed_by_openssl("over", "URI:spiffe://beamlit/gateway", days="over")
    made.signed_by_openssl("for-servers", "URI:spiffe://beamlit/gateway", usage="serverAuth")
    made.signed_by_openssl("nobody", "URI:spiffe://beamlit/gatewa", "DNS:gateway")
    made.signed_by_openssl("nameless")
    made.signed_by_openssl("by-mail", "email:gateway@spiffe.beamlit", "IP:127.0.0.1")
    made.signed_by_openssl("of-a-mesh", "URI:spiffe://cluster.local/ns/beamlit/sa/envoy")
    made.signed_by_openssl("by-dns", "DNS:envoy-1.envoys.beamlit.svc")
    return made


@pytest.fixture
async def served(certificates: Certificates):
    server = await Served.start(tls=certificates.server())
    server.publish(*model("ns/m", 8080, 9090), *SECRETS)
    yield server
    await server.stop()


def test_every_method_that_there_is_is_walked() -> None:
    """A method that is added to a service, or a service that is, has its line in `METHODS`."""
    pool = reflection.described()
    services_ = (*services.NAMES, health.SERVICE_NAME, reflection.V1, reflection.V1ALPHA)
    every = (pool.FindServiceByName(name) for name in services_)
    assert {f"/{one.full_name}/{method.name}" for one in every for method in one.methods} == set(METHODS)


async def test_who_has_no_good_certificate_is_not_even_connected(certificates, served) -> None:
    hostile = ("of-another-authority", "over", "for-servers")
    ours = certificates.channel_credentials
    without = {"no certificate": ours(None), "no TLS": None, **{name: ours(name) for name in hostile}}
    for who, credentials in without.items():
        for method, said in METHODS.items():
            code, _ = await outcome(served.port, credentials, method, said)
            assert code is grpc.StatusCode.UNAVAILABLE, (who, method)


async def test_a_controller_is_nobody_for_xds(certificates, served) -> None:
    for method, said in METHODS.items():
        ended = await outcome(served.port, certificates.channel_credentials("controller"), method, said)
        assert ended == (grpc.StatusCode.PERMISSION_DENIED, "the client is controller, which is nobody for xDS"), method


@pytest.mark.parametrize("who", ["nobody", "nameless", "by-mail", "of-a-mesh"])
async def test_a_certificate_that_is_nobodys_is_refused_everything(certificates, served, who) -> None:
    for method, said in METHODS.items():
        code, why = await outcome(served.port, certificates.channel_credentials(who), method, said)
        assert code is grpc.StatusCode.PERMISSION_DENIED, (method, why)
        assert "no client of this server has a certificate of these names" in why


async def test_a_certificate_of_one_node_is_refused_to_another(certificates, served) -> None:
    other = certificates.channel_credentials("gateway/envoy-2")
    for method in OF_A_NODE:
        code, why = await outcome(served.port, other, method, METHODS[method])
        assert code is grpc.StatusCode.PERMISSION_DENIED, (method, why)
        assert why == "the client is gateway/envoy-2, and not the gateway 'envoy-1'"


@pytest.mark.parametrize("who", ["gateway", "gateway/envoy-1", "reader"])
async def test_who_has_a_certificate_of_ours_may_call_every_method(certificates, served, who) -> None:
    for method, said in METHODS.items():
        if method != "/grpc.health.v1.Health/List":
            assert await outcome(served.port, certificates.channel_credentials(who), method, said) == OK, method


@pytest.mark.parametrize(
    ("who", "claims", "lets"),
    [
        ("sidecar/a", "a/any", True),
        ("sidecar/a", "b/any", False),
        ("sidecar/b/proxy", "b/proxy", True),
        ("sidecar/b/proxy", "b/another", False),
        ("sidecar/b/proxy", "a/proxy", False),
        ("gateway", "a/any", False),
    ],
)
async def test_a_sidecar_is_of_the_namespace_of_its_certificate(certificates, served, who, claims, lets):
    namespace, _, node_id = claims.partition("/")
    node = base_pb2.Node(id=node_id)
    node.metadata.update({"role": "sidecar", "namespace": namespace})
    said = discovery_pb2.DeltaDiscoveryRequest(node=node, type_url=CLUSTER)
    code, _ = await outcome(
        served.port, certificates.channel_credentials(who), f"/{ADS}/DeltaAggregatedResources", said
    )
    assert (code is grpc.StatusCode.OK) is lets


async def secrets_seen(port: int, credentials: grpc.ChannelCredentials, node: base_pb2.Node) -> int:
    method = "/envoy.service.secret.v3.SecretDiscoveryService/FetchSecrets"
    async with grpc.aio.secure_channel(
        f"localhost:{port}", credentials, [("grpc.use_local_subchannel_pool", 1)]
    ) as channel:
        call = channel.unary_unary(method, response_deserializer=discovery_pb2.DiscoveryResponse.FromString)
        asked = discovery_pb2.DiscoveryRequest(node=node)
        return len((await call(asked.SerializeToString(), timeout=4 * PATIENCE)).resources)


async def test_secrets_are_seen_by_certificate_and_the_token_says_nothing(certificates, served) -> None:
    ours = certificates.channel_credentials
    without_token = base_pb2.Node(id="envoy-1")
    assert await secrets_seen(served.port, ours("gateway"), without_token) == 1
    assert await secrets_seen(served.port, ours("reader"), NODE) == 0


async def test_a_reader_counts_for_nothing(certificates, served) -> None:
    credentials = certificates.channel_credentials("reader")
    assert await outcome(served.port, credentials, f"/{ADS}/DeltaAggregatedResources", DELTA) == OK
    assert served.events == []


async def keeps_nobody_out(certificates: Certificates, handshake: float) -> bool:
    """Whether who has a certificate is answered while connections are open without a handshake, which end."""
    served = await Served.start(timing=StreamTiming(handshake=handshake), tls=certificates.server())
    served.publish(*model("ns/m", 8080, 9090))
    method, ours = f"/{ADS}/DeltaAggregatedResources", certificates.channel_credentials("gateway")
    # Nothing; what is not TLS; and the beginning of a record that does not come.
    words = (b"", b"PRI * HTTP/2.0\r\n\r\n", b"\x16\x03\x01\x40\x00")
    try:
        with contextlib.ExitStack() as stack:
            silent = [one for says in words for one in stack.enter_context(connected(served, 60, says))]
            let_in = await outcome(served.port, ours, method, DELTA) == OK
            await until(lambda: not still_open(silent), "they are closed")
        return let_in and await outcome(served.port, ours, method, DELTA) == OK
    finally:
        await served.stop()


async def test_connections_that_never_finish_their_handshake_end_and_keep_nobody_out(certificates) -> None:
    for handshake in HANDSHAKES:
        if await keeps_nobody_out(certificates, handshake):
            return
    raise AssertionError("nobody is let in")


async def test_names_of_a_mesh_are_bound_by_a_table_and_then_nothing_else_is(certificates) -> None:
    bindings = ("spiffe://cluster.local/ns/beamlit/sa/envoy=gateway", "envoy-1.envoys.beamlit.svc=gateway/envoy-1")
    served = await Served.start(tls=certificates.server(ClientTable.of(map(parse_binding, bindings))))
    served.publish(*model("ns/m", 8080, 9090))
    method, ours = f"/{ADS}/DeltaAggregatedResources", certificates.channel_credentials
    try:
        for who in ("of-a-mesh", "by-dns"):
            assert await outcome(served.port, ours(who), method, DELTA) == OK
        code, why = await outcome(served.port, ours("gateway"), method, DELTA)
        assert why.startswith("no client of this server has"), why
        assert code is grpc.StatusCode.PERMISSION_DENIED
        said = discovery_pb2.DeltaDiscoveryRequest(node=base_pb2.Node(id="envoy-2"), type_url=CLUSTER)
        code, _ = await outcome(served.port, ours("by-dns"), method, said)
        assert code is grpc.StatusCode.PERMISSION_DENIED
    finally:
        await served.stop()
