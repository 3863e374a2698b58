"""A user's text stays text, and every name is what it says."""

import pytest

from tests.support.resources import by_key, message_of
from tests.support.routes import A, a_remote, a_route, ready
from xds_server.resources import names
from xds_server.resources.model import Gateway, resources_for
from xds_server.snapshot.snapshot import ResourceKey
from xds_server.snapshot.types import ENDPOINT, LISTENER, ROUTE


def found(route, replicas=(), gateway=None):
    return by_key(resources_for(A, route, replicas, gateway or Gateway()))


def inner_route(remote):
    listener = message_of(found(a_route(remote))[ResourceKey(LISTENER, names.remote_listener(A))])
    (manager,) = listener.filter_chains[0].filters
    (virtual_host,) = unpacked(manager.typed_config).route_config.virtual_hosts
    (route,) = virtual_host.routes
    return route


def unpacked(any_):
    from envoy.extensions.filters.network.http_connection_manager.v3 import (  # noqa: PLC0415
        http_connection_manager_pb2,
    )

    message = http_connection_manager_pb2.HttpConnectionManager()
    assert any_.Unpack(message)
    return message


@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("plain", "plain"),
        ("50% off", "50%% off"),
        ("%REQ(authorization)%", "%%REQ(authorization)%%"),
        ("%%", "%%%%"),
        ("", ""),
    ],
)
def test_a_header_value_is_never_a_substitution(value, sent):
    (header,) = inner_route(a_remote(headers={"x": value})).request_headers_to_add
    assert header.header.value == sent


@pytest.mark.parametrize(("prefix", "rewrite"), [("", "/"), ("/", "/"), ("/v1", "/v1/"), ("/v1/", "/v1/")])
def test_the_path_prefix_goes_in_front_of_the_path(prefix, rewrite):
    assert inner_route(a_remote(path_prefix=prefix)).route.prefix_rewrite == rewrite


def test_prior_fault_24_what_belongs_to_the_client_stays_inside():
    removed = set(inner_route(a_remote()).request_headers_to_remove)
    assert {"authorization", "x-forwarded-for", "x-envoy-external-address"} <= removed


def test_the_front_listens_where_the_gateway_says():
    listener = message_of(found(a_route(port=8443), gateway=Gateway("10.1.2.3"))[ResourceKey(LISTENER, "default/a")])
    address = listener.address.socket_address
    assert (address.address, address.port_value) == ("10.1.2.3", 8443)


@pytest.mark.parametrize("away", [0, 1, 50, 100])
def test_the_weights_are_the_split(away):
    route = message_of(found(a_route(a_remote(), away=away))[ResourceKey(ROUTE, "default/a")])
    clusters = route.virtual_hosts[0].routes[0].route.weighted_clusters.clusters
    assert {one.name: one.weight.value for one in clusters} == {
        "default/a/local": 100 - away,
        "default/a/remote": away,
    }


def test_each_cluster_tries_its_own_side_first():
    built = found(a_route(a_remote()), ready("10.0.0.1", "fd00::1"))
    for cluster, sides in (("local", ["local", "remote"]), ("remote", ["remote", "local"])):
        assignment = message_of(built[ResourceKey(ENDPOINT, f"default/a/{cluster}")])
        assert [side.locality.zone for side in assignment.endpoints] == sides
        assert [side.priority for side in assignment.endpoints] == [0, 1]
        (replicas,) = (side for side in assignment.endpoints if side.locality.zone == "local")
        addresses = [one.endpoint.address.socket_address.address for one in replicas.lb_endpoints]
        assert addresses == ["10.0.0.1", "fd00::1"]


def test_every_endpoint_says_which_side_it_is():
    assignment = message_of(found(a_route(a_remote()), ready("10.0.0.1"))[ResourceKey(ENDPOINT, "default/a/local")])
    for side in assignment.endpoints:
        for endpoint in side.lb_endpoints:
            assert endpoint.metadata.filter_metadata["beamlit"]["route"] == side.locality.zone
