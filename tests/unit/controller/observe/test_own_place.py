"""Remote backends that are the gateway itself."""

import pytest

from controller.api.contract.route import Remote
from controller.observe.own_place import GatewayPlace, OwnPlace, ServedPorts, this_host
from controller.observe.references import resolve
from tests.support.indexed import view_of
from tests.support.objects import a_model, a_service

LOOPBACK = this_host("127.0.0.1")
IN_CLUSTER = GatewayPlace(service=("beamlit-system", "gateway"))
SERVICE = (
    a_service("gateway")
    .port(80)
    ._with(["10.96.1.2", "fd00::12"], "spec", "clusterIPs")
    ._with(["192.0.2.7"], "spec", "externalIPs")
    ._with([{"ip": "198.51.100.3"}, {"hostname": "LB.example.com"}], "status", "loadBalancer", "ingress")
    .parsed()
)


def remote(host: str, port: int = 80) -> Remote:
    return Remote(host=host, port=port, authority=host)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST.", "a.localhost", "0.0.0.0", "::ffff:127.0.0.1"])
def test_in_a_folder_it_is_this_host_at_a_port_of_a_model(host):
    own = OwnPlace(LOOPBACK, ports=frozenset((30081,)))
    asked = {port: own.leads_here(remote(host, port), 30080) for port in (30080, 30081, 9100)}
    assert asked == {30080: True, 30081: True, 9100: False}


@pytest.mark.parametrize("host", ["127.0.0.2", "models.example.com", "localhost.example.com", "::1"])
def test_in_a_folder_everything_else_is_elsewhere(host):
    assert not OwnPlace(LOOPBACK, ports=frozenset((30080,))).leads_here(remote(host, 30080), 30080)


@pytest.mark.parametrize(
    ("address", "leading"),
    [
        ("127.0.0.1", "127.0.0.1 localhost"),
        ("0.0.0.0", "127.0.0.1 localhost"),
        ("::1", "::1 localhost"),
        ("0:0::1", "::1 localhost"),
        ("::", "127.0.0.1 ::1 localhost"),
        ("192.0.2.9", "192.0.2.9"),
        ("2001:db8::9", "2001:db8::9"),
    ],
)
def test_which_names_of_this_host_lead_to_the_gateway_is_a_matter_of_where_it_listens(address, leading):
    own = OwnPlace(this_host(address, 8080))
    hosts = ("127.0.0.1", "::1", "localhost", "192.0.2.9", "2001:db8::9")
    assert [host for host in hosts if own.leads_here(remote(host, 8080), 30080)] == [
        host for host in hosts if host in leading.split()
    ]


def test_the_port_for_all_models_is_the_gateway_too():
    asked = [this_host("127.0.0.1", 8080), this_host("127.0.0.1")]
    assert [OwnPlace(one).leads_here(remote("localhost", 8080), 30080) for one in asked] == [True, False]


@pytest.mark.parametrize(
    "host",
    [
        "gateway",
        "gateway.beamlit-system",
        "gateway.beamlit-system.svc",
        "Gateway.beamlit-system.svc.cluster.local.",
        "10.96.1.2",
        "fd00:0::12",
        "192.0.2.7",
        "198.51.100.3",
        "lb.example.com",
    ],
)
def test_in_a_cluster_it_is_the_service_of_the_gateway_at_any_port(host):
    assert OwnPlace(IN_CLUSTER, SERVICE).leads_here(remote(host, 10_000), None)


@pytest.mark.parametrize(
    "host",
    ["gateway.other", "gateway.other.svc.cluster.local", "gateway.beamlit-system.svc.west", "10.96.1.3", "x"],
)
def test_in_a_cluster_everything_else_is_elsewhere(host):
    assert not OwnPlace(IN_CLUSTER, SERVICE).leads_here(remote(host), None)


def test_the_names_are_known_where_the_service_is_not():
    assert OwnPlace(IN_CLUSTER).leads_here(remote("gateway.beamlit-system"), None)


def test_such_a_backend_is_not_used_and_the_field_is_named():
    model = a_model().fronting("a").with_remote("localhost:30080")
    world = view_of(a_service().port(80, nodePort=30080))
    resolved = resolve(model.intent(), world, None, own=OwnPlace(LOOPBACK))
    assert resolved.remotes == ()
    assert [(one.reason, one.message) for one in resolved.faults] == [
        (
            "LoopDetected",
            "spec.offloadingConfig.remoteBackend.host: localhost, port 30080, is this gateway itself: what is sent "
            "there comes back",
        )
    ]
    assert resolve(model.intent(), world, None).remotes


def test_who_asks_at_a_port_is_looked_at_again_when_a_model_comes_to_it_or_leaves():
    served, a, b = ServedPorts(), a_model("a").ref, a_model("b").ref
    served.asks(a, [30081])
    assert (served.served([30081]), served.record(b, 30081)) == (frozenset(), {a})
    assert (served.served([30081, 1]), served.record(b, 30081)) == ({30081}, frozenset())
    assert (served.record(b, 30082), served.served([30081])) == ({a}, frozenset())
    served.asks(a, [])
    assert served.record(b, 30081) == frozenset()
