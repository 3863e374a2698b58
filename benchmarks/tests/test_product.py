"""The product that is measured serves what it is given, and what it is given later."""

import yaml

from benchmarks.proxies import protection
from benchmarks.proxies.configs import FRONT_PORT, Upstreams
from benchmarks.proxies.product import MODEL, ServedModel, model_route
from tests.support.network import Network
from tests.support.protocol.xds_client import DeltaClient
from xds_server.resources.access_log import AccessLog
from xds_server.resources.names import entrance, entrance_routes
from xds_server.resources.translator import EnvoySettings
from xds_server.snapshot.snapshot import ENDPOINT, LISTENER, ROUTE, SECRET


def joining(bootstrap):
    """A client with the port and the token of a bootstrap."""
    whole = yaml.safe_load(bootstrap)
    cluster = next(one for one in whole["static_resources"]["clusters"] if one["name"] == "xds_server")
    (endpoint,) = cluster["load_assignment"]["endpoints"][0]["lb_endpoints"]
    port = endpoint["endpoint"]["address"]["socket_address"]["port_value"]
    return DeltaClient(port, "envoy", whole["node"]["metadata"]["beamlit_token"])


async def test_a_model_with_its_replicas_its_secrets_and_its_access_log(tmp_path):
    upstreams = Upstreams.in_network(Network.unused())
    secrets = protection.Protection.made_in(tmp_path).secrets
    route = model_route(upstreams, 50)
    guarded = route.remote.model_copy(update={"auth": protection.API_KEY, "tls": protection.TLS})
    plane = ServedModel(
        EnvoySettings("127.9.9.9", access_log=AccessLog.ALL),
        upstreams.replicas,
        route.model_copy(update={"remotes": (guarded,)}),
        secrets,
    )
    client = joining(await plane.start())
    try:
        await client.subscribe(SECRET, "*")
        answer = await client.receive()
        assert any(b"key" in one.resource.value for one in answer.resources)
        assert len(answer.resources) == 2
        await client.ack()
        await client.subscribe(ENDPOINT, "*")
        (endpoints,) = (await client.receive()).resources
        assert all(host.encode() in endpoints.resource.value for host in upstreams.replicas)
        await client.ack()
        await client.subscribe(LISTENER, "*")
        front = next(one for one in (await client.receive()).resources if one.name == entrance(FRONT_PORT))
        assert b"127.9.9.9" in front.resource.value
        assert b"access_log" in front.resource.value
    finally:
        await client.close()
        await plane.stop()


async def test_another_split_is_served_from_then_on():
    upstreams = Upstreams.in_network(Network.unused())
    plane = ServedModel(EnvoySettings("127.9.9.9"), upstreams.replicas, model_route(upstreams, 100))
    client = joining(await plane.start())
    try:
        await client.subscribe(ROUTE, entrance_routes(MODEL, FRONT_PORT))
        first = (await client.receive()).resources[0].version
        await client.ack()
        plane.publish(model_route(upstreams, 50))
        assert (await client.receive()).resources[0].version != first
    finally:
        await client.close()
        await plane.stop()
