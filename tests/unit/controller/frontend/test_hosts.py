"""By which hosts a model is called on the port that all models share, and which of several models has one."""

from __future__ import annotations

import pytest

from controller.api.contract.route import LocalBackend, Route, Split
from controller.frontend.allocation import Allocations, Occupancy, Request, hosts_of_route
from controller.frontend.claims import Claims, ModelClaim, Seniority, ServicePortClaim, hosts_of
from controller.frontend.ports import AllocatedPorts
from tests.support.objects import a_model

A, B, NEXT_DOOR = a_model("a").ref, a_model("b").ref, a_model("next").in_namespace("door").ref
OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


def texts(namespace: str, service: str, number: int) -> list[str]:
    return [one.host for one in hosts_of(namespace, service, number)]


def winners(claims: Claims, *hosts: str):
    """Say who has each of these hosts."""
    every = {one.host: one for number in (80, 8000, 8001) for one in hosts_of("default", "s", number)}
    return [claims.winner(every[host]) for host in hosts]


def test_a_model_asks_for_the_name_of_its_service_with_its_port_and_without():
    assert texts("default", "s", 80) == ["s.default", "s.default:80"]
    assert texts("default", "s", 8000) == ["s.default", "s.default:8000"]


@pytest.mark.parametrize("service", ["My_Service", "a.b", "", "-a", "a" * 64, "*", "a:80", "a/b", "é"])
def test_a_name_that_can_stand_in_no_host_leads_to_none(service):
    assert texts("default", service, 80) == []


def test_the_name_without_a_port_is_that_of_port_80_however_old_the_others_are():
    claims = Claims()
    claims.claim(A, OLD, hosts_of("default", "s", 8000))
    assert winners(claims, "s.default", "s.default:80", "s.default:8000") == [A, None, A]
    assert claims.claim(B, NEW, hosts_of("default", "s", 80)) == {A}
    assert winners(claims, "s.default", "s.default:80", "s.default:8000") == [B, B, A]
    assert claims.claim(B, "", ()) == {A}
    assert winners(claims, "s.default", "s.default:80") == [A, None]


def test_without_port_80_the_oldest_of_the_service_has_the_name():
    claims = Claims()
    claims.claim(B, NEW, hosts_of("default", "s", 8000))
    claims.claim(A, OLD, hosts_of("default", "s", 8001))
    assert winners(claims, "s.default", "s.default:8000", "s.default:8001") == [A, B, A]


def test_those_at_home_go_before_those_next_door_but_not_before_port_80():
    claims = Claims()
    claims.claim(NEXT_DOOR, OLD, hosts_of("default", "s", 8000))
    claims.claim(A, NEW, hosts_of("default", "s", 8001))
    assert winners(claims, "s.default") == [A]
    claims.claim(NEXT_DOOR, OLD, hosts_of("default", "s", 80))
    assert winners(claims, "s.default", "s.default:8001") == [NEXT_DOOR, A]


def a_request(name: str, number: int) -> Request:
    claim = ServicePortClaim("default", "s", f"p{number}")
    return Request(ModelClaim("default", "production", name), claim, number, hosts=hosts_of("default", "s", number))


def a_route(port: int, number: int, *hosts: str) -> Route:
    local = LocalBackend(namespace="default", service="s", port_name=f"p{number}")
    return Route.between(port=port, split=Split.away(0), local=local).model_copy(update={"hosts": hosts})


def test_a_model_is_served_without_the_hosts_that_another_has_and_is_accepted():
    table = Allocations(AllocatedPorts())
    for ref, created, number in ((A, OLD, 8000), (B, NEW, 80)):
        table.register(ref, Seniority(created, ref.namespace, ref.name), a_request(ref.name, number), Occupancy())
    given = table.allocate(A, a_request("a", 8000), None, None)
    assert (given.port, given.refusal, given.hosts) == (10000, None, ("s.default:8000",))
    assert table.allocate(B, a_request("b", 80), None, None).hosts == ("s.default", "s.default:80")


def test_who_keeps_its_route_keeps_its_hosts_and_nobody_else_is_given_them():
    """An edit that leads nowhere: B names a Service port that A has."""
    table = Allocations(AllocatedPorts())
    route = a_route(10001, 8000, "s.default:8000")
    table.register(A, Seniority(OLD, A.namespace, A.name), a_request("a", 80), Occupancy())
    has = Occupancy(10001, ServicePortClaim("default", "s", "p8000"), hosts_of_route(route))
    table.register(B, Seniority(NEW, B.namespace, B.name), a_request("b", 80), has)
    kept = table.allocate(B, a_request("b", 80), route, 10001)
    assert (kept.port, kept.keeps_route, kept.hosts) == (10001, True, ("s.default:8000",))


def test_a_host_is_claimed_with_the_same_right_by_who_asks_for_it_and_who_has_it():
    for number in (80, 8000):
        asked = hosts_of("default", "s", number)
        has = hosts_of_route(a_route(10000, number, *(one.host for one in asked)))
        assert [(one.host, one.rank) for one in has] == [(one.host, one.rank) for one in asked]
