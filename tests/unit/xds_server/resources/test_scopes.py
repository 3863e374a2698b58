"""A translator for each scope: the gateways, and the sidecars of a namespace."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.api.timing import GatewayTiming
from tests.support.resources import by_key, message_of
from tests.support.routes import A, B, a_remote, a_route, a_route_with, ready, with_key
from xds_server.resources.access_log import AccessLog
from xds_server.resources.translator import EnvoySettings, Translator
from xds_server.snapshot.snapshot import LISTENER, ResourceKey

GATEWAY, SIDECAR = EnvoySettings("0.0.0.0"), EnvoySettings("127.0.0.2")
FRONT = ResourceKey(LISTENER, "port/80")
ROUTES = {
    "local only": a_route(),
    "a share leaves": a_route(a_remote(headers={"x-a": "1"}), away=30),
    "a credential": a_route(a_remote(auth=with_key()), away=100),
    "a limit": a_route_with(a_remote(), max_requests_per_replica=4),
    "two remotes": a_route_with(a_remote(), a_remote("b", name="remote-b"), shares={"remote": 30, "remote-b": 20}),
}


@pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)
def test_a_sidecar_gets_what_a_gateway_gets_but_for_the_address_it_listens_on(route):
    gateway, sidecar = (
        by_key(Translator(settings).resources(A, route, ready("10.0.0.1"))) for settings in (GATEWAY, SIDECAR)
    )
    assert gateway.keys() == sidecar.keys()
    assert {key for key in gateway if gateway[key] != sidecar[key]} == {FRONT}
    listeners = [message_of(found[FRONT]) for found in (gateway, sidecar)]
    assert [one.address.socket_address.address for one in listeners] == ["0.0.0.0", "127.0.0.2"]
    for one in listeners:
        one.ClearField("address")
    assert listeners[0] == listeners[1]
    assert gateway[FRONT].requires == sidecar[FRONT].requires


@settings(max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([GATEWAY, SIDECAR, replace(GATEWAY, access_log=AccessLog.ALL)]),
            st.sampled_from([A, B]),
            st.sampled_from([*ROUTES.values(), a_route(a_remote(), away=31), a_route(a_remote("b"), away=30)]),
            st.sampled_from([(), ready("10.0.0.1")]),
            st.sampled_from([1, 3]),
        ),
        max_size=8,
    )
)
def test_what_was_translated_before_makes_no_difference(steps):
    translators = {}
    for scope, *step in steps:
        remembering = translators.setdefault(scope, Translator(scope))
        assert remembering.resources(*step) == Translator(scope).resources(*step)


def test_settings_that_are_equal_are_one_key():
    assert EnvoySettings(timing=GatewayTiming()) == EnvoySettings(timing=GatewayTiming())
    assert hash(EnvoySettings(timing=GatewayTiming())) == hash(EnvoySettings(timing=GatewayTiming()))


def test_the_settings_say_how_many_share_a_limit_unless_it_is_counted():
    route, replicas = ROUTES["a limit"], ready("10.0.0.1", "10.0.0.2")
    three = Translator(EnvoySettings(envoys=3)).resources(A, route, replicas)
    assert three == Translator(EnvoySettings()).resources(A, route, replicas, 3)
    assert three != Translator(EnvoySettings()).resources(A, route, replicas)
