"""The checks of replicas: how often, how strictly, and what all Envoys together cost."""

from datetime import timedelta

import pytest

from controller.api.contract.route import LocalBackend, ReplicaCheck, Route, Split
from controller.api.kubernetes.endpoints import Replica
from controller.api.timing import REAL
from tests.support.resources import by_key, message_of
from tests.support.routes import A, a_remote
from xds_server.resources.checks import replica_check
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, ResourceKey

PROBE = ReplicaCheck(path="/up", interval=timedelta(seconds=10), timeout=timedelta(seconds=2), failures=4)
LOCAL = "model/default/a/local"


def of(check, envoys=1):
    return replica_check(check, REAL.gateway, envoys)


def route_with(check):
    local = LocalBackend(namespace="default", service="a", health_check=check)
    return Route.between(port=80, split=Split.away(0), local=local, remote=a_remote())


def resources(check, *replicas):
    return by_key(Translator(EnvoySettings()).resources(A, route_with(check), replicas))


def endpoints_of(check, *replicas):
    (side,) = message_of(resources(check, *replicas)[ResourceKey(ENDPOINT, LOCAL)]).endpoints
    return [one.endpoint for one in side.lb_endpoints]


@pytest.mark.parametrize("check", [None, PROBE, ReplicaCheck(grpc_service="a", interval=timedelta(seconds=7))])
@pytest.mark.parametrize("envoys", [1, 2, 64])
def test_all_envoys_together_ask_as_often_as_the_kubelet(check, envoys):
    alone, shared = of(check), of(check, envoys)
    assert shared.interval == alone.interval * envoys == (check.interval if check else timedelta(seconds=1)) * envoys


@pytest.mark.parametrize(
    ("period", "envoys", "again"),
    [(10, 1, 1), (10, 4, 4), (10, 16, 10), (40, 16, 16), (40, 1000, 40), (1, 16, 5), (None, 16, 5), (None, 1000, 5)],
)
def test_what_is_not_used_though_the_kubelet_calls_it_ready_is_asked_again_soon(period, envoys, again):
    """All together ask it once a second, and each of many no more seldom than the kubelet, or every five seconds."""
    check = PROBE.model_copy(update={"interval": timedelta(seconds=period)}) if period else None
    assert of(check, envoys).unhealthy_interval == timedelta(seconds=again)


@pytest.mark.parametrize("check", [None, PROBE])
def test_a_check_is_never_in_more_of_a_hurry_than_the_probe(check):
    built = of(check)
    assert built.unhealthy_edge_interval == built.no_traffic_healthy_interval == built.interval
    # Between two failures while there never was a request; with one Envoy, a period of the kubelet.
    assert built.no_traffic_interval == built.interval >= built.unhealthy_interval
    assert built.interval_jitter_percent == 20
    assert built.healthy_threshold == 1
    assert built.unhealthy_threshold == (check.failures if check else 3)
    assert built.timeout > (check.timeout if check else timedelta(seconds=1))


@pytest.mark.parametrize(("period", "envoys", "again"), [(10, 4, 10), (1, 4, 4), (86400, 4, 60)])
def test_an_idle_model_is_not_disbelieved_sooner_than_by_the_kubelet(period, envoys, again):
    """Nor is one that is probed once a day disbelieved for a day."""
    assert of(
        PROBE.model_copy(update={"interval": timedelta(seconds=period)}), envoys
    ).no_traffic_interval == timedelta(seconds=again)


def test_no_number_of_envoys_changes_the_check():
    """A cluster that changes counts anew what is in flight, so that a gateway which grows would forget all of it."""
    replica, translator = Replica("10.0.0.1", 8000, True), Translator(EnvoySettings(checks_shared_by=4))
    one, many = (by_key(translator.resources(A, route_with(PROBE), (replica,), envoys)) for envoys in (1, 64))
    assert one == many
    check = message_of(one[ResourceKey(CLUSTER, LOCAL)]).health_checks[0]
    assert check.interval.ToTimedelta() == 4 * PROBE.interval


def test_each_endpoint_is_asked_for_itself():
    addresses = [Replica("10.0.0.1", 8000, True), Replica("fd00::1", 8001, True)]
    hosts = [one.health_check_config.hostname for one in endpoints_of(PROBE, *addresses)]
    assert hosts == ["10.0.0.1:8000", "[fd00::1]:8001"]
    elsewhere = endpoints_of(PROBE.model_copy(update={"port": 9000}), *addresses)
    assert [one.health_check_config.hostname for one in elsewhere] == ["10.0.0.1:9000", "[fd00::1]:9000"]
    assert {one.health_check_config.port_value for one in elsewhere} == {9000}
    named = endpoints_of(PROBE.model_copy(update={"host": "m.example"}), *addresses)
    assert not any(one.HasField("health_check_config") for one in [*named, *endpoints_of(None, *addresses)])


@pytest.mark.parametrize("failures", [1, 3])
def test_a_grpc_call_names_the_address_that_it_asks(failures):
    """By default Envoy says the name of the cluster, whose "/" strict servers refuse."""
    call = ReplicaCheck(grpc_service="", failures=failures)
    (endpoint,) = endpoints_of(call, Replica("10.0.0.1", 8000, True))
    assert endpoint.health_check_config.hostname == "10.0.0.1:8000"


def test_tls_is_for_the_check_alone():
    cluster = message_of(resources(PROBE.model_copy(update={"tls": True}))[ResourceKey(CLUSTER, LOCAL)])
    assert not cluster.HasField("transport_socket")
    (match,) = cluster.transport_socket_matches
    assert match.match == cluster.health_checks[0].transport_socket_match_criteria


def test_replicas_that_leave_are_there_when_nobody_is_ready():
    leaving = Replica("10.0.0.1", 8000, ready=False, leaving=True)
    waiting, ready = Replica("10.0.0.2", 8000, False), Replica("10.0.0.3", 8000, True)
    addresses = [
        [one.address.socket_address.address for one in endpoints_of(None, *replicas)]
        for replicas in ((leaving, waiting, ready), (leaving, waiting), (waiting,))
    ]
    assert addresses == [["10.0.0.3"], ["10.0.0.1"], []]
