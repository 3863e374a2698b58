"""A port that Services still lead clients to: it is kept for their namespace, within its quota."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.api.registry import SERVICE
from controller.frontend.claims import Seniority
from controller.frontend.kept_ports import KeptPorts
from controller.frontend.ports import AllocatedPorts, GatewayPorts, ServicePorts
from controller.store.objects import ObjectRef
from tests.support.objects import a_model

A, OF_ITS_OWN = a_model("a").in_namespace("one").ref, a_model("own").in_namespace("one").ref
B, C = a_model("b").in_namespace("two").ref, a_model("c").in_namespace("three").ref
OLDER = a_model("older").in_namespace("four").ref
EVERYBODY = (OLDER, A, OF_ITS_OWN, B, C)
AGES = {one: Seniority(f"2026-01-0{day}T00:00:00Z", one.namespace, one.name) for day, one in enumerate(EVERYBODY, 1)}
CALLED, ALSO_CALLED = (ObjectRef(SERVICE.kind, "one", name) for name in ("called", "also-called"))
NOWHERE: frozenset[int] = frozenset()


def a_table(**rule) -> GatewayPorts:
    return GatewayPorts(AllocatedPorts(**rule))


def served(table: GatewayPorts, model, said: int | None = None, fixed: int | None = None):
    """Record a model by its status and its spec, and give it a port."""
    table.record(model, AGES[model], said, fixed)
    return table.allocate(model, 80, said)


def anything(_):
    return 80


def at(*ports: int) -> frozenset[int]:
    return frozenset(ports)


def test_a_port_that_its_model_left_is_given_next_door_once_no_service_leads_there():
    table = a_table()
    served(table, A, 10000, fixed=10000)
    table.keep(CALLED, at(10000))
    assert served(table, B, fixed=10000).refusal.message.endswith("is already that of ModelDeployment one/a")
    assert served(table, A, 10000, fixed=10005).port == 10005
    assert table.record(A, AGES[A], 10005, 10005) == {B}
    refused = served(table, B, fixed=10000)
    assert (refused.port, refused.refusal.reason) == (None, "Conflict")
    assert refused.refusal.message == (
        "spec.servingPort: port 10000 becomes free once no Service of namespace one leads its clients there any more"
    )
    assert table.keep(CALLED, at(10005)) == {B}
    assert table.allocate(B, 80, None).port == 10000


def test_of_a_model_that_is_gone_it_is_the_same():
    table = a_table()
    served(table, A, 10000, fixed=10000)
    table.keep(CALLED, at(10000))
    served(table, B, fixed=10000)
    assert table.forget(A) == {B}
    assert table.allocate(B, 80, None).refusal
    assert table.keep(CALLED, NOWHERE) == {B}
    assert table.allocate(B, 80, None).port == 10000


def test_after_a_restart_what_services_lead_to_is_enough():
    table = a_table()
    table.keep(CALLED, at(10000))
    table.record(B, AGES[B], None, 10000)
    table.record(A, AGES[A], 10005, 10005)
    assert not table.owns(B, 10000)
    assert table.allocate(B, 80, None).refusal.reason == "Conflict"


def test_a_port_that_a_status_says_stays_that_model_s_wherever_a_service_leads():
    table = a_table()
    table.keep(CALLED, at(10000))
    assert served(table, B, said=10000, fixed=10000).port == 10000
    assert served(table, B, said=10000).port == 10000


@pytest.mark.parametrize("order", [(OLDER, A), (A, OLDER)])
def test_of_two_statuses_that_say_one_port_that_of_whom_clients_are_led_to_counts_and_not_the_older(order):
    table = a_table()
    table.keep(CALLED, at(10000))
    for model in order:
        table.record(model, AGES[model], 10000)
    assert table.owns(A, 10000)
    assert {model: table.allocate(model, 80, 10000).port for model in order} == {A: 10000, OLDER: 10001}


def test_models_of_the_namespace_itself_may_have_it():
    table = a_table()
    table.keep(CALLED, at(10000))
    assert served(table, OF_ITS_OWN, fixed=10000).port == 10000


def test_it_is_kept_until_the_last_service_leads_elsewhere():
    table = a_table()
    for service in (CALLED, ALSO_CALLED):
        table.keep(service, at(10000))
    served(table, B, fixed=10000)
    table.keep(CALLED, NOWHERE)
    assert table.allocate(B, 80, None).refusal
    table.keep(ALSO_CALLED, NOWHERE)
    assert table.allocate(B, 80, None).port == 10000


def test_nobody_next_door_is_given_it_by_chance_either():
    table = a_table(last=10002)
    table.keep(CALLED, at(10000, 10001))
    assert served(table, B).port == 10002
    full = served(table, C)
    assert full.refusal.reason == "NoPort"
    assert table.keep(CALLED, at(10000)) == {C}
    assert table.allocate(C, 80, None).port == 10001


def test_who_comes_back_by_its_name_next_door_does_not_have_it_back():
    table = a_table()
    assert served(table, B).port == 10000
    table.forget(B)
    table.keep(CALLED, at(10000))
    assert served(table, B).port == 10001


def test_models_of_two_namespaces_get_each_others_ports_if_no_service_leads_there_and_else_stay():
    for led, moved in ((NOWHERE, True), (at(10000), False)):
        table = a_table()
        table.keep(CALLED, led)
        served(table, A, 10000)
        served(table, B, 10001)
        table.record(A, AGES[A], 10000, 10001)
        table.record(B, AGES[B], 10001, 10000)
        for model, before, after in ((A, 10000, 10001), (B, 10001, 10000)):
            assert table.allocate(model, 80, before, anything).port == (after if moved else before)


def test_nobody_is_moved_to_where_clients_of_another_namespace_are_led():
    table = a_table()
    table.keep(CALLED, at(10002))
    served(table, B, 10000, fixed=10002)
    table.record(C, AGES[C], None, 10000)
    assert table.allocate(C, 80, None, anything).refusal
    assert table.owns(B, 10000)


def test_what_is_kept_counts_for_the_quota_of_its_namespace():
    table = a_table(per_namespace=1)
    served(table, A, 10000)
    table.keep(CALLED, at(10000))
    assert served(table, OF_ITS_OWN).refusal.reason == "NoPort"
    table.forget(A)
    assert table.allocate(OF_ITS_OWN, 80, None).refusal.reason == "NoPort"
    # The namespace has it already: the model that fixes it asks for none more.
    assert served(table, OF_ITS_OWN, fixed=10000).port == 10000
    table.forget(OF_ITS_OWN)
    assert served(table, OF_ITS_OWN, fixed=10007).refusal.reason == "NoPort"
    assert table.keep(CALLED, NOWHERE) == {OF_ITS_OWN}
    assert table.allocate(OF_ITS_OWN, 80, None).port == 10007


def test_a_namespace_keeps_no_more_than_its_quota_whatever_its_services_lead_to():
    table = a_table(per_namespace=2)
    table.keep(CALLED, at(*range(10000, 30000)))
    assert [served(table, model, fixed=port).port for model, port in ((B, 10001), (C, 10002))] == [None, 10002]


def test_ports_that_the_gateway_does_not_have_are_nobody_s():
    table = a_table(per_namespace=1, reserved=frozenset({18000}))
    table.keep(CALLED, at(80, 18000, 30000))
    assert served(table, A).port == 10000


def test_in_a_folder_no_service_leads_anywhere():
    table = GatewayPorts(ServicePorts())
    table.keep(CALLED, at(8080))
    table.record(B, AGES[B], None)
    assert table.allocate(B, 8080, None).port == 8080


NAMESPACES = ("one", "two", "three", "four")
PORTS = st.integers(10000, 10003)
WHATEVER_HAPPENS = st.lists(
    st.tuples(st.sampled_from(EVERYBODY), st.sampled_from(("serve", "forget", "lead")), PORTS, st.frozensets(PORTS)),
    max_size=40,
)


@given(WHATEVER_HAPPENS)
def test_nobody_is_given_what_is_kept_next_door(steps):
    table, led, has = a_table(last=10003, per_namespace=4), {}, {}
    for model, what, fixed, ports in steps:
        before = has.get(model)
        # What its status said at last is its own until the next one is seen.
        owned = {port for port in range(10000, 10004) if table.owns(model, port)}
        if what == "lead":
            table.keep(ObjectRef(SERVICE.kind, model.namespace, model.name), ports)
            led[model] = ports
        elif what == "forget":
            table.forget(model)
            has.pop(model, None)
        else:
            table.record(model, AGES[model], before, fixed)
            has[model] = table.allocate(model, 80, before).port
        if what == "serve" and has[model] is not None and has[model] not in owned:
            assert all(one.namespace == model.namespace or has[model] not in ports for one, ports in led.items())


@given(WHATEVER_HAPPENS)
def test_what_is_counted_is_what_is_kept_and_held_by_no_model_of_the_namespace(steps):
    holders: dict[int, ObjectRef] = {}
    kept = KeptPorts(holders.get)
    led: dict[ObjectRef, frozenset[int]] = {}
    for model, what, port, ports in steps:
        if what == "lead":
            kept.keep(model, ports, lambda *_: True)
            led[model] = ports
        else:
            if before := holders.pop(port, None):
                kept.released(port, before.namespace)
            if what == "serve":
                holders[port] = model
                kept.held(port, model.namespace)
    for namespace in NAMESPACES:
        own = {port for port, holder in holders.items() if holder.namespace == namespace}
        found = {port for one, ports in led.items() for port in ports if one.namespace == namespace}
        assert kept.besides(namespace) == len(found - own)
        assert {kept.besides(namespace, but=port) for port in range(10000, 10004) if port not in found - own} <= {
            len(found - own)
        }
