import pytest

from xds_server.snapshot.scope import GATEWAY, Role, Scope, UnknownScopeError


@pytest.mark.parametrize("role", ["", "gateway"])
def test_a_client_is_of_the_gateway_unless_it_says_otherwise(role):
    assert Scope.of(role, "") == GATEWAY


def test_the_gateway_serves_every_namespace_wherever_it_runs():
    assert Scope.of("gateway", "ns") == GATEWAY


def test_a_sidecar_is_of_its_namespace():
    assert Scope.of("sidecar", "ns") == Scope(Role.SIDECAR, "ns")


def test_a_sidecar_without_a_namespace_is_told_so():
    with pytest.raises(UnknownScopeError, match="a sidecar must say its namespace"):
        Scope.of("sidecar", "")


@pytest.mark.parametrize("role", ["Gateway", "router", "*"])
def test_an_unknown_role_sees_nothing_and_is_told_which_there_are(role):
    with pytest.raises(UnknownScopeError, match=r"there are: gateway, sidecar"):
        Scope.of(role, "ns")
