"""What a user with the real grpcurl sees: services, descriptions, resources with every Any decoded."""

import asyncio
import json

import pytest

from tests.support.processes import ends_with_me
from tests.support.protocol.envoy_resources import model
from tests.support.protocol.xds_client import ADS, Served
from tests.support.tls import Certificates
from tests.support.waiting import in_time
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE

SERVICES = [
    "envoy.service.cluster.v3.ClusterDiscoveryService",
    "envoy.service.discovery.v3.AggregatedDiscoveryService",
    "envoy.service.endpoint.v3.EndpointDiscoveryService",
    "envoy.service.listener.v3.ListenerDiscoveryService",
    "envoy.service.load_stats.v3.LoadReportingService",
    "envoy.service.route.v3.RouteDiscoveryService",
    "envoy.service.route.v3.ScopedRoutesDiscoveryService",
    "envoy.service.secret.v3.SecretDiscoveryService",
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
]
ADS_STREAM = f"{ADS}StreamAggregatedResources".strip("/")


@pytest.fixture
async def curl(grpcurl, served):
    """Run grpcurl against the server; return what it printed."""
    served.publish(*model("ns/m", 8080, 9090))

    async def run(*arguments, data=None):
        sent = ["-d", data] if data is not None else []
        process = await asyncio.create_subprocess_exec(
            *ends_with_me((grpcurl, "-plaintext", *sent, f"127.0.0.1:{served.port}", *arguments)),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, error = await in_time(asyncio.ensure_future(process.communicate()), "grpcurl ends")
        assert process.returncode == 0, error.decode()
        return out.decode()

    return run


@pytest.fixture
async def curl_over_tls(grpcurl, tmp_path):
    """Run grpcurl against a server with TLS, as whoever has the certificate of this name; return its end."""
    certificates = Certificates.make(tmp_path)
    served = await Served.start(tls=certificates.server())
    served.publish(*model("ns/m", 8080, 9090))

    async def run(name, *arguments):
        certificate, key, ca = certificates.files(name or "reader")
        proof = ("-cert", certificate, "-key", key) if name else ()
        process = await asyncio.create_subprocess_exec(
            *ends_with_me((grpcurl, "-cacert", ca, *proof, f"localhost:{served.port}", *arguments)),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, error = await in_time(asyncio.ensure_future(process.communicate()), "grpcurl ends")
        return process.returncode, out.decode(), error.decode()

    yield run
    await served.stop()


async def test_over_tls_a_reader_sees_the_same_by_its_certificate(curl_over_tls):
    code, said, error = await curl_over_tls("reader", "list")
    assert (code, said.split(), error) == (0, SERVICES, "")
    code, said, _ = await curl_over_tls("reader", "envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters")
    assert (code, len(json.loads(said)["resources"])) == (0, 1)
    assert_decoded(said)


async def test_over_tls_others_are_told_that_they_may_not(curl_over_tls):
    code, said, error = await curl_over_tls("controller", "list")
    assert (code == 0, said) == (False, "")
    assert "the client is controller, which is nobody for xDS" in error
    code, said, error = await curl_over_tls(None, "list")
    assert (code == 0, said) == (False, "")


async def test_list_names_every_service(curl):
    assert (await curl("list")).split() == SERVICES


@pytest.mark.parametrize(
    "symbol",
    [
        "envoy.service.discovery.v3.AggregatedDiscoveryService",
        "envoy.service.cluster.v3.ClusterDiscoveryService",
        "envoy.service.load_stats.v3.LoadReportingService",
        "envoy.service.load_stats.v3.LoadStatsRequest",
        "grpc.reflection.v1.ServerReflection",
        "grpc.health.v1.Health",
        "envoy.config.cluster.v3.Cluster",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "envoy.extensions.filters.http.credential_injector.v3.CredentialInjector",
        "envoy.extensions.http.injected_credentials.generic.v3.Generic",
        "envoy.extensions.http.injected_credentials.oauth2.v3.OAuth2",
        "envoy.extensions.router.cluster_specifiers.lua.v3.LuaConfig",
        "envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig",
        "envoy.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate",
        "envoy.extensions.transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "envoy.extensions.load_balancing_policies.client_side_weighted_round_robin.v3.ClientSideWeightedRoundRobin",
        "envoy.extensions.bootstrap.internal_listener.v3.InternalListener",
    ],
)
async def test_describe_knows_services_and_payloads(curl, symbol):
    assert f"{symbol} is a" in await curl("describe", symbol)


@pytest.mark.parametrize("type_url", [CLUSTER, ENDPOINT, LISTENER, ROUTE])
async def test_the_aggregated_stream_gives_every_type(curl, type_url):
    said = await curl(ADS_STREAM, data=json.dumps({"type_url": type_url}))
    (resource,) = json.loads(said)["resources"]
    assert resource["@type"] == type_url
    assert resource.get("name", resource.get("clusterName")) == "ns/m"
    assert_decoded(said)


@pytest.mark.parametrize(
    "name", ["cluster.v3.Cluster", "endpoint.v3.Endpoint", "listener.v3.Listener", "route.v3.Route"]
)
async def test_fetch_gives_every_type(curl, name):
    said = await curl(f"envoy.service.{name}DiscoveryService/Fetch{name.split('.')[-1]}s")
    assert len(json.loads(said)["resources"]) == 1
    assert_decoded(said)


async def test_the_delta_stream_answers_names(curl):
    asked = {"type_url": LISTENER, "resource_names_subscribe": ["ns/m", "nobody"]}
    said = await curl(f"{ADS}DeltaAggregatedResources".strip("/"), data=json.dumps(asked))
    answer = json.loads(said)
    assert [r["name"] for r in answer["resources"]] == ["ns/m"]
    assert answer["removedResources"] == ["nobody"]
    assert_decoded(said)


def assert_decoded(said):
    assert "@error" not in said
    assert '"@value"' not in said
    assert "@unknown" not in said
