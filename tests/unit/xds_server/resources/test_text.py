"""A user's text stays text, and every name is what it says."""

import re

import pytest
from envoy.extensions.clusters.aggregate.v3.cluster_pb2 import ClusterConfig
from envoy.type.v3.percent_pb2 import FractionalPercent

from tests.support.resources import by_key, message_of
from tests.support.routes import A, a_remote, a_route, ready
from xds_server.resources import names
from xds_server.resources.routing import PATH_TRAVERSAL
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, LISTENER, ROUTE, ResourceKey


def found(route, replicas=(), settings=None):
    return by_key(Translator(settings or EnvoySettings()).resources(A, route, replicas))


def through_the_internal_listener(remote):
    route = message_of(found(a_route(remote))[ResourceKey(ROUTE, names.remote_route_configuration(A))])
    return route.virtual_hosts[0].routes[-1]


def by_the_split(remote):
    route = message_of(found(a_route(remote, away=100))[ResourceKey(ROUTE, "port/80/default")])
    return route.virtual_hosts[0].routes[-1]


# A request goes to the remote backend because the split says so, or because no replica took it.
either_way = pytest.mark.parametrize("leaving", [by_the_split, through_the_internal_listener])


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
@either_way
def test_a_header_value_is_never_a_substitution(leaving, value, sent):
    (header,) = leaving(a_remote(headers={"x": value})).request_headers_to_add
    assert header.header.value == sent


@pytest.mark.parametrize(("prefix", "rewrite"), [("", "/"), ("/", "/"), ("/v1", "/v1/"), ("/v1/", "/v1/")])
@either_way
def test_the_path_prefix_goes_in_front_of_the_path(leaving, prefix, rewrite):
    route = leaving(a_remote("r:81", path_prefix=prefix)).route
    assert (route.prefix_rewrite, route.host_rewrite_literal) == (rewrite, "r:81")


@pytest.mark.parametrize(("prefix", "refuses"), [("", False), ("/", False), ("/v1", True)])
@pytest.mark.parametrize("name", ["port/80/default", "remote/model/default/a"])
def test_only_where_there_is_a_prefix_paths_that_lead_out_of_it_are_refused(name, prefix, refuses):
    route = a_route(a_remote(path_prefix=prefix), away=50)
    routes = message_of(found(route)[ResourceKey(ROUTE, name)]).virtual_hosts[0].routes
    # In front of the route that leaves, and behind the one that does not.
    assert [one.direct_response.status for one in routes][-2:-1] == ([400] if refuses else [405])


@pytest.mark.parametrize(
    ("path", "refused"),
    [
        *((path, True) for path in ("/a/../b", "/..", "/a%2F..%2f", "/a\\..", "/..;x", "/%252e%252E/")),
        *((path, False) for path in ("/a/.../b", "/a..", "/..a", "/a%2Fb", "/.", "/a/%2e%2ex")),
    ],
)
def test_a_path_that_leads_out_is_told_by_its_dots(path, refused):
    assert (re.fullmatch(PATH_TRAVERSAL, path) is not None) is refused


@either_way
def test_prior_fault_24_what_belongs_to_the_client_stays_inside(leaving):
    removed = set(leaving(a_remote()).request_headers_to_remove)
    assert {"authorization", "x-forwarded-for", "x-envoy-external-address"} <= removed


def test_the_front_listens_where_the_settings_say():
    listener = message_of(
        found(a_route(port=8443), settings=EnvoySettings("10.1.2.3"))[ResourceKey(LISTENER, "port/8443")]
    )
    address = listener.address.socket_address
    assert (address.address, address.port_value) == ("10.1.2.3", 8443)


@pytest.mark.parametrize(
    ("away", "shares"),
    [
        (0, {"local": None}),
        (1, {"local": 99, "trace": None, "remote": None}),
        (50, {"local": 50, "trace": None, "remote": None}),
        (100, {"trace": None, "remote": None}),
    ],
)
def test_the_routes_are_the_split(away, shares):
    routes = (
        message_of(found(a_route(a_remote(), away=away))[ResourceKey(ROUTE, "port/80/default")]).virtual_hosts[0].routes
    )
    fractions = {
        one.name: one.match.runtime_fraction.default_value if one.match.HasField("runtime_fraction") else None
        for one in routes
    }
    # A route without a fraction takes whatever is left.
    assert {name: fraction and fraction.numerator for name, fraction in fractions.items()} == shares
    assert all(fraction is None or fraction.denominator == FractionalPercent.HUNDRED for fraction in fractions.values())


def test_the_replicas_are_their_cluster_and_the_remote_side_is_behind_it():
    resources = found(a_route(a_remote()), ready("10.0.0.1", "fd00::1"))
    (replicas,) = message_of(resources[ResourceKey(ENDPOINT, "model/default/a/local")]).endpoints
    addresses = [one.endpoint.address.socket_address.address for one in replicas.lb_endpoints]
    assert addresses == ["10.0.0.1", "fd00::1"]
    (behind,) = message_of(resources[ResourceKey(CLUSTER, "model/default/a/remote")]).load_assignment.endpoints
    (listener,) = behind.lb_endpoints
    assert listener.endpoint.address.envoy_internal_address.server_listener_name == "remote/model/default/a"
    in_turn = ClusterConfig()
    assert message_of(resources[ResourceKey(CLUSTER, "model/default/a/local-first")]).cluster_type.typed_config.Unpack(
        in_turn
    )
    assert list(in_turn.clusters) == ["model/default/a/local", "model/default/a/remote"]


def test_every_endpoint_says_which_side_it_is():
    resources = found(a_route(a_remote()), ready("10.0.0.1"))
    replicas = message_of(resources[ResourceKey(ENDPOINT, "model/default/a/local")])
    behind = message_of(resources[ResourceKey(CLUSTER, "model/default/a/remote")]).load_assignment
    for assignment, side in ((replicas, "local"), (behind, "remote")):
        ((endpoint,),) = (one.lb_endpoints for one in assignment.endpoints)
        assert endpoint.metadata.filter_metadata["beamlit"]["route"] == side
