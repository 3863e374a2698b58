"""`spec.servingPort`: the port of the gateway that a model fixes, and who else may have it."""

from __future__ import annotations

import sys

import pytest

from controller.frontend.claims import Seniority
from controller.frontend.ports import AllocatedPorts, GatewayPorts, ServicePorts
from tests.support.objects import a_model

A, B, C = a_model("a").ref, a_model("b").ref, a_model("c").ref
NEXT_DOOR = a_model("next").in_namespace("door").ref
AGES = {
    one: Seniority(f"2026-01-0{day}T00:00:00Z", one.namespace, one.name)
    for day, one in enumerate((A, B, C, NEXT_DOOR), 1)
}


def a_table(rule=None) -> GatewayPorts:
    return GatewayPorts(rule or AllocatedPorts(reserved=frozenset({18000})))


def served(table: GatewayPorts, model, said: int | None = None, fixed: int | None = None):
    """Record a model by its status and its spec, and give it a port."""
    table.record(model, AGES[model], said, fixed)
    return table.allocate(model, 80, said)


def anything(_):
    """Say that every model is to be served."""
    return 80


def test_a_model_has_the_port_that_it_fixes_and_has_it_again_when_it_is_created_again():
    table = a_table()
    assert served(table, A, fixed=12345).port == 12345
    table.forget(A)
    assert served(table, B).port == 10000
    assert served(table, A, fixed=12345).port == 12345


@pytest.mark.parametrize(
    ("port", "reason", "words"),
    [
        (80, "Invalid", "must be a port that the gateway has for models, 10000 to 29999, is 80"),
        (9999, "Invalid", "must be a port that the gateway has for models, 10000 to 29999, is 9999"),
        (30000, "Invalid", "must be a port that the gateway has for models, 10000 to 29999, is 30000"),
        (18000, "Conflict", "port 18000 is one that a program of the gateway listens on"),
    ],
)
def test_a_port_that_no_model_can_have_is_refused_and_the_present_one_is_kept(port, reason, words):
    table = a_table()
    new = served(table, A, fixed=port)
    assert (new.port, new.refusal.reason, new.refusal.message) == (None, reason, f"spec.servingPort: {words}")
    kept = served(table, B, said=10007, fixed=port)
    assert (kept.port, kept.refusal) == (10007, new.refusal)


def test_a_port_that_another_has_is_refused_with_the_field_and_the_holder_until_it_is_free():
    table = a_table()
    assert served(table, B).port == 10000
    refused = served(table, A, fixed=10000)
    assert (refused.port, refused.refusal.reason) == (None, "Conflict")
    assert refused.refusal.message == "spec.servingPort: port 10000 is already that of ModelDeployment default/b"
    assert table.forget(B) == {A}
    assert table.allocate(A, 80, None).port == 10000


def test_a_fixed_port_is_given_to_nobody_else_while_its_owner_exists_also_if_that_is_not_served():
    table = a_table()
    table.record(B, AGES[B], None, 10000)
    assert table.allocate(B, None, None).port is None
    assert served(table, A).port == 10001
    assert served(table, C, fixed=10000).refusal.message.endswith("is already that of ModelDeployment default/b")
    assert table.allocate(B, 80, None).port == 10000


def test_of_two_that_fix_one_port_at_once_the_older_has_it_whoever_is_seen_first():
    table = a_table()
    assert table.record(B, AGES[B], None, 10005) == frozenset()
    assert table.record(A, AGES[A], None, 10005) == {B}
    assert table.allocate(B, 80, None).refusal
    assert table.allocate(A, 80, None).port == 10005


def test_an_older_model_takes_no_port_from_one_that_is_served_on_it():
    table = a_table()
    assert served(table, B, fixed=10005).port == 10005
    assert served(table, A, fixed=10005).port is None
    assert table.allocate(B, 80, 10005).port == 10005


def test_who_is_served_on_a_port_goes_before_who_only_fixes_it_in_whatever_order_they_are_seen():
    table = a_table()
    table.record(A, AGES[A], None, 10005)
    assert table.record(B, AGES[B], 10005) == {A}
    assert table.allocate(B, 80, 10005).port == 10005
    assert table.allocate(A, 80, None).refusal.reason == "Conflict"


def test_who_changes_its_port_has_the_old_one_until_its_status_says_the_new_one():
    table = a_table()
    assert served(table, A, fixed=10005).port == 10005
    table.record(A, AGES[A], 10005, 10006)
    assert table.allocate(A, 80, 10005).port == 10006
    assert table.owns(A, 10005)
    table.record(A, AGES[A], 10006, 10006)
    assert not table.owns(A, 10005)


def test_who_no_longer_fixes_its_port_keeps_it():
    table = a_table()
    assert served(table, A, fixed=10005).port == 10005
    assert served(table, A, said=10005).port == 10005


def test_two_that_fix_each_others_ports_get_them():
    table = a_table()
    served(table, A, fixed=10000)
    served(table, B, fixed=10001)
    table.record(A, AGES[A], 10000, 10001)
    table.record(B, AGES[B], 10001, 10000)
    moved = table.allocate(A, 80, 10000, anything)
    assert (moved.port, moved.refusal, moved.affected) == (10001, None, {B})
    assert table.allocate(B, 80, 10001, anything).port == 10000


def test_fixed_ports_count_for_the_quota_of_their_namespace_served_or_not():
    table = a_table(AllocatedPorts(per_namespace=2))
    table.record(A, AGES[A], None, 11000)
    table.record(B, AGES[B], None, 11001)
    table.record(C, AGES[C], None, 11002)
    refused = table.allocate(C, 80, None)
    assert (refused.port, refused.refusal.reason) == (None, "NoPort")
    # What is beyond the quota holds nothing: those next door may have it.
    assert served(table, NEXT_DOOR, fixed=11002).port == 11002
    assert table.forget(A) == {C}
    assert table.allocate(C, 80, None).refusal.message.endswith("is already that of ModelDeployment door/next")


def test_a_model_at_the_quota_may_change_its_port():
    table = a_table(AllocatedPorts(per_namespace=1))
    assert served(table, A, fixed=11000).port == 11000
    assert served(table, A, said=11000, fixed=11001).port == 11001


def test_in_a_folder_a_fixed_port_is_any_port_and_stands_for_that_of_the_service():
    table = a_table(ServicePorts(frozenset({19000})))
    table.record(A, AGES[A], None, 8080)
    assert table.allocate(A, 8080, None).port == 8080
    table.record(B, AGES[B], None, 19000)
    assert table.allocate(B, 19000, None).refusal.message.startswith(
        "spec.servingPort: port 19000 is one that `beamlit"
    )


def waiting_for(holder, count):
    """A table in which so many models fix the port that another has, the oldest last; and them, the oldest first."""
    table = a_table()
    served(table, holder, fixed=12345)
    waiting = [a_model(f"w{number}").ref for number in range(count)]
    for number, one in enumerate(waiting):
        table.record(one, Seniority(f"2026-02-01T00:00:00.{count - number:06}Z", one.namespace, one.name), None, 12345)
        assert str(holder) in table.allocate(one, 80, None).refusal.message
    return table, waiting[::-1]


def test_of_those_who_wait_for_a_port_the_first_is_told_at_once_and_the_others_one_by_one():
    table, waiting = waiting_for(A, 30)
    assert table.forget(A) == {waiting[0]}
    assert table.allocate(waiting[0], 80, None).port == 12345
    told = []
    while (one := table.next_to_tell()) is not None:
        told.append(one)
        assert str(waiting[0]) in table.allocate(one, 80, None).refusal.message
    assert told == waiting[1:]
    assert not table.tells


def test_who_is_told_later_has_the_port_that_those_before_do_not_take():
    table, waiting = waiting_for(A, 3)
    assert table.forget(A) == {waiting[0]}
    assert table.forget(waiting[0]) == frozenset()
    assert table.next_to_tell() == waiting[1]
    assert table.allocate(waiting[1], 80, None).port == 12345


def test_a_port_that_becomes_free_costs_the_same_however_many_wait_for_it():
    def calls(count):
        table, _ = waiting_for(A, count)
        made = 0

        def counted(_frame, event, _arg):
            nonlocal made
            made += event in ("call", "c_call")

        sys.setprofile(counted)
        try:
            table.forget(A)
        finally:
            sys.setprofile(None)
        return made

    assert calls(1000) < 1.5 * calls(10)
