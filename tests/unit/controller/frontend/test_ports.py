"""Which model is served on which port of the gateway."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.frontend.claims import Seniority
from controller.frontend.ports import AllocatedPorts, GatewayPorts, ServicePorts
from tests.support.objects import a_model

A, B, C = a_model("a").ref, a_model("b").ref, a_model("c").ref
AGES = {one: Seniority(f"2026-01-0{day}T00:00:00Z", one.namespace, one.name) for day, one in enumerate((A, B, C), 1)}


def ports(rule, **said: int | None) -> GatewayPorts:
    """A table in which each model was observed, by the port that its status says."""
    table = GatewayPorts(rule)
    for model in (C, B, A):
        table.record(model, AGES[model], said.get(model.name))
    return table


def test_a_model_has_the_port_of_its_service():
    table = ports(ServicePorts())
    assert table.allocate(A, 80, None).port == 80
    assert table.owns(A, 80)


def test_the_holder_keeps_it_against_an_older_one():
    table = ports(ServicePorts(), b=80)
    settled = table.allocate(A, 80, None)
    assert (settled.port, settled.refusal.reason) == (None, "Conflict")
    assert settled.refusal.message == "port 80 is already that of ModelDeployment default/b"
    assert table.allocate(B, 80, 80).port == 80


def test_who_waits_for_a_port_keeps_the_one_it_has():
    table = ports(ServicePorts(), a=80, b=81)
    settled = table.allocate(B, 80, 81)
    assert (settled.port, settled.refusal.reason) == (81, "Conflict")


def test_who_moves_frees_its_port_once_its_status_says_so_and_not_before():
    table = ports(ServicePorts(), a=80)
    assert table.allocate(B, 80, None).refusal
    assert table.allocate(A, 81, 80).affected == frozenset()
    assert table.allocate(B, 80, None).refusal
    assert table.record(A, AGES[A], 81) == {B}
    assert table.allocate(B, 80, None).port == 80


def test_a_port_that_becomes_free_is_told_to_all_that_wait_for_it():
    table = ports(ServicePorts(), a=80)
    table.allocate(B, 80, None)
    table.allocate(C, 81, None)
    assert table.forget(A) == {B}
    assert table.allocate(B, 80, None).port == 80


def test_who_no_longer_wants_a_port_does_not_wait_for_it():
    table = ports(ServicePorts(), a=80)
    table.allocate(B, 80, None)
    table.allocate(B, 81, None)
    assert table.forget(A) == frozenset()


def test_a_port_that_was_given_and_never_written_is_free_when_it_is_no_longer_wanted():
    table = ports(ServicePorts())
    table.allocate(A, 80, None)
    table.allocate(B, 80, None)
    assert table.allocate(A, None, None).affected == {B}
    assert table.allocate(B, 80, None).port == 80


def test_a_port_that_becomes_free_is_given_after_all_others():
    """Clients of who had it may still call it."""
    table = ports(AllocatedPorts(10000, 10003), a=10000, b=10001)
    table.forget(A)
    assert table.allocate(C, 80, None).port == 10002
    table.forget(C)
    others = [a_model(name).ref for name in "xyz"]
    assert [table.allocate(one, 80, None).port for one in others] == [10003, 10000, 10002]


def test_a_model_that_comes_back_by_its_name_has_the_port_that_it_had_unless_somebody_else_has_it():
    table = ports(AllocatedPorts(10000, 10002), a=10000, b=10001)
    table.forget(A)
    table.record(A, AGES[A], None)
    assert table.allocate(A, 80, None).port == 10000
    table.forget(B)
    assert table.allocate(C, 80, None).port == 10002
    assert table.allocate(a_model("x").ref, 80, None).port == 10001
    table.record(B, AGES[B], None)
    assert table.allocate(B, 80, None).refusal.reason == "NoPort"


def test_after_a_restart_the_ports_go_on_where_they_were():
    table = ports(AllocatedPorts(10000, 10009), b=10004, c=10001)
    assert table.allocate(A, 80, None).port == 10005


def test_a_thousand_models_are_given_ports_in_one_walk():
    asked = 0

    class Counting(frozenset):
        def __contains__(self, port):
            nonlocal asked
            asked += 1
            return False

    table = GatewayPorts(AllocatedPorts(reserved=Counting()))
    for number in range(1000):
        table.allocate(a_model(f"m{number}").ref, 80, None)
    assert asked < 10 * 1000


def test_the_next_port_is_given_and_kept():
    table = ports(AllocatedPorts(10000, 10002), b=10000)
    assert table.allocate(A, 80, None).port == 10001
    assert table.allocate(C, 80, None).port == 10002
    assert table.allocate(A, 8080, None).port == 10001
    assert table.allocate(B, 80, 10000).port == 10000


def test_a_port_is_kept_while_the_status_says_it_also_when_nothing_is_served():
    table = ports(AllocatedPorts(), a=10000)
    assert table.allocate(A, None, None).port is None
    assert table.owns(A, 10000)
    assert table.allocate(B, 80, None).port == 10001
    assert table.allocate(A, 80, None).port == 10000


def test_a_port_that_turns_out_to_be_a_programs_is_left_by_who_has_it_and_given_to_nobody():
    table = ports(AllocatedPorts(10000, 10003), b=10000)
    assert table.allocate(A, 80, None).port == 10001
    assert table.reserve(frozenset({10000, 10001, 10002, 17000})) == {A, B}
    assert table.reserve(frozenset({10000})) == frozenset()
    assert table.record(B, AGES[B], 10000) == frozenset()
    assert table.allocate(B, 80, 10000).port == 10003
    assert table.allocate(A, 80, 10001).refusal.reason == "NoPort"
    assert table.forget(B) == {A}
    assert table.allocate(A, 80, None).port == 10003


def test_a_port_outside_the_range_is_kept_for_life_too():
    assert ports(AllocatedPorts(), a=30500).allocate(A, 80, 30500).port == 30500


def test_of_two_statuses_that_say_one_port_the_older_object_has_it_and_the_other_gets_a_new_one():
    table = GatewayPorts(AllocatedPorts())
    assert table.record(B, AGES[B], 10000) == frozenset()
    assert table.record(A, AGES[A], 10000) == {B}
    assert table.allocate(B, 80, 10000).port == 10001
    assert table.allocate(A, 80, 10000).port == 10000


def test_whom_we_gave_a_port_keeps_it_whatever_the_status_of_an_older_one_says():
    table = GatewayPorts(AllocatedPorts())
    table.record(B, AGES[B], None)
    assert table.allocate(B, 80, None).port == 10000
    assert table.record(A, AGES[A], 10000) == frozenset()
    assert table.allocate(A, 80, 10000).port == 10001
    assert table.allocate(B, 80, 10000).port == 10000


def test_what_was_given_here_is_taken_by_no_status_that_somebody_writes():
    table = ports(AllocatedPorts(), b=10000)
    assert table.allocate(B, 80, 10000).port == 10000
    assert table.record(A, AGES[A], 10000) == frozenset(), "the older one's status says so, and nobody gave it"
    assert table.allocate(A, 80, 10000).port == 10001
    assert table.allocate(B, 80, 10000).port == 10000


def test_a_port_that_is_fixed_is_taken_by_no_status_that_somebody_writes_while_its_model_is_not_served():
    table = ports(AllocatedPorts(), a=10000)
    assert table.allocate(A, 80, 10000).port == 10000
    table.record(B, AGES[B], None, 10007)
    assert table.record(A, AGES[A], 10007) == frozenset()
    assert table.allocate(B, 80, None).port == 10007
    assert table.allocate(A, 80, 10007).port == 10000


def test_what_was_given_here_and_is_given_by_another_controller_since_is_not_held_against_that():
    table = ports(AllocatedPorts(), b=10000)
    table.allocate(B, 80, 10000)
    table.record(B, AGES[B], 10005)
    assert table.record(A, AGES[A], 10000) == {B}
    assert table.allocate(A, 80, 10000).port == 10000


@pytest.mark.parametrize("order", [(A, B), (B, A)])
def test_after_a_restart_who_fixes_a_port_has_it_and_no_older_one_whose_status_says_it(order):
    table, fixes = GatewayPorts(AllocatedPorts()), {B: 10000}
    for model in order:
        table.record(model, AGES[model], 10000, fixes.get(model))
    assert table.allocate(A, 80, 10000).port == 10001
    assert table.allocate(B, 80, 10000).port == 10000


def test_without_any_port_left_a_model_says_so_and_hears_of_the_next_one():
    table = ports(AllocatedPorts(10000, 10000))
    assert table.allocate(A, 80, None).port == 10000
    settled = table.allocate(B, 80, None)
    assert settled.port is None
    assert (settled.refusal.reason, settled.refusal.message) == (
        "NoPort",
        "all ports of the gateway, 10000 to 10000, have a model",
    )
    assert table.forget(A) == {B}
    assert table.allocate(B, 80, None).port == 10000


def wanting(**ports: int):
    """Say who wants which port."""
    return lambda model: ports.get(model.name)


def test_models_get_each_others_ports():
    table = ports(ServicePorts(), a=80, b=81)
    wants = wanting(a=81, b=80)
    settled = table.allocate(A, 81, 80, wants)
    assert (settled.port, settled.refusal, settled.affected) == (81, None, {B})
    assert table.allocate(B, 80, 81, wants).port == 80


def test_the_circle_may_be_any_number_of_models():
    table = ports(ServicePorts(), a=80, b=81, c=82)
    wants = wanting(a=81, b=82, c=80)
    assert table.allocate(A, 81, 80, wants).affected == {B, C}
    assert [table.allocate(B, 82, 81, wants).port, table.allocate(C, 80, 82, wants).port] == [82, 80]


def test_a_row_of_models_moves_up_at_once():
    table = ports(ServicePorts(), a=80, b=81)
    wants = wanting(a=81, b=82)
    assert table.allocate(A, 81, 80, wants).port == 81
    assert table.allocate(B, 82, 81, wants).port == 82
    assert table.allocate(C, 82, None, wants).refusal.message == "port 82 is already that of ModelDeployment default/b"


def test_a_model_moves_away_for_nobody_if_the_port_that_it_wants_is_of_one_who_stays():
    table = ports(ServicePorts(), a=80, b=81, c=82)
    wants = wanting(a=81, b=82, c=82)
    assert table.allocate(A, 81, 80, wants).refusal
    assert table.allocate(B, 82, 81, wants).refusal
    assert [table.allocate(model, None, port).port for model, port in ((A, 80), (B, 81))] == [80, 81]


def test_who_wants_into_a_circle_of_others_waits():
    table = ports(ServicePorts(), b=81, c=82)
    wants = wanting(a=81, b=82, c=81)
    assert table.allocate(A, 81, None, wants).refusal
    assert table.allocate(B, 82, 81, wants).port == 82
    assert table.allocate(C, 81, 82, wants).port == 81


def test_an_older_model_does_not_take_back_the_port_that_it_gave_away_while_its_status_is_not_written():
    table = ports(ServicePorts(), a=80, b=81)
    wants = wanting(a=81, b=80)
    assert table.allocate(B, 80, 81, wants).affected == {A}
    assert table.record(A, AGES[A], 80) == frozenset()
    assert table.owns(B, 80)
    assert table.record(B, AGES[B], 80) == frozenset()
    assert table.allocate(A, 81, 80, wants).port == 81


def test_who_does_not_want_the_port_any_more_that_it_was_given_keeps_that():
    table = ports(ServicePorts(), a=80, b=81)
    table.allocate(A, 81, 80, wanting(a=81, b=80))
    settled = table.allocate(B, 81, 81, wanting(a=81, b=81))
    assert (settled.port, settled.refusal.message) == (80, "port 81 is already that of ModelDeployment default/a")


def test_a_controller_that_begins_after_half_of_an_exchange_ends_it():
    for said in ({"a": 81, "b": 81}, {"a": 80, "b": 80}):
        table = ports(ServicePorts(), **said)
        wants = wanting(a=81, b=80)
        due = [B, A]
        for model in (*due, *due):
            settled = table.allocate(model, wants(model), said[model.name], wants)
            if settled.port:
                said[model.name] = settled.port
                table.record(model, AGES[model], settled.port)
        assert said == {"a": 81, "b": 80}


@pytest.mark.parametrize("rule", [ServicePorts(frozenset({80})), AllocatedPorts(80, 81, reserved=frozenset({80}))])
def test_a_port_of_a_program_is_no_model_s_whatever_a_status_says(rule):
    table = ports(rule, a=80)
    assert not table.owns(A, 80)
    for _ in range(2):
        assert table.allocate(A, 80, 80).port != 80
        assert not table.owns(A, 80)


def test_who_asks_for_a_port_of_a_program_keeps_the_one_it_has_and_is_told_whose_it_is():
    table = ports(ServicePorts(frozenset({19000})), a=80)
    settled = table.allocate(A, 19000, 80)
    assert (settled.port, settled.refusal.reason) == (80, "Conflict")
    assert settled.refusal.message == (
        "port 19000 is one that `beamlit run` needs itself (--xds-address, --admin-address, --gateway-port)"
    )
    assert table.allocate(B, 19000, None).port is None


def test_the_lowest_free_port_is_none_of_a_program():
    table = ports(AllocatedPorts(10000, 10003, reserved=frozenset({10000, 10002})))
    assert [table.allocate(model, 80, None).port for model in (A, B, C)] == [10001, 10003, None]


NEIGHBOUR = a_model("z").in_namespace("other").ref
AGES[NEIGHBOUR] = Seniority("2026-01-04T00:00:00Z", "other", "z")


def test_a_namespace_has_no_more_ports_than_its_quota_and_the_others_have_theirs():
    table = ports(AllocatedPorts(per_namespace=2))
    assert [table.allocate(model, 80, None).port for model in (A, B, C)] == [10000, 10001, None]
    refusal = table.allocate(C, 80, None).refusal
    assert (refusal.reason, refusal.message) == (
        "NoPort",
        "namespace default has as many ports of the gateway as a namespace may have: 2 (modelsPerNamespace of the "
        "controller's configuration)",
    )
    assert table.allocate(NEIGHBOUR, 80, None).port == 10002
    assert table.forget(NEIGHBOUR) == frozenset(), "this is no room for those of another namespace"
    assert table.forget(A) == {C}
    assert table.allocate(C, 80, None).port == 10003


def test_who_waits_beyond_the_quota_is_told_one_at_a_time_until_there_is_no_more_room():
    table = ports(AllocatedPorts(per_namespace=1))
    table.allocate(A, 80, None)
    waiting = [a_model(f"w{number}").ref for number in range(3)]
    for one in waiting:
        table.record(one, Seniority("2026-02-01T00:00:00Z", one.namespace, one.name), None)
        table.allocate(one, 80, None)
    assert table.forget(A) == {waiting[0]}
    # The first one wants none any more, the second one takes it.
    assert table.allocate(waiting[0], None, None).affected == {waiting[1]}
    assert table.allocate(waiting[1], 80, None).affected == frozenset()
    assert table.allocate(waiting[2], 80, None).port is None


def test_a_quota_that_is_lowered_takes_nothing_away():
    table = ports(AllocatedPorts(per_namespace=1), a=10000, b=10001)
    assert [table.allocate(model, 80, said).port for model, said in ((A, 10000), (B, 10001), (C, None))] == [
        10000,
        10001,
        None,
    ]
    assert table.forget(A) == frozenset()
    assert table.forget(B) == {C}


models, numbers = st.sampled_from((A, B, C)), st.sampled_from((None, 80, 81))
RULES = (
    ServicePorts(),
    ServicePorts(frozenset({80})),
    AllocatedPorts(80, 82),
    AllocatedPorts(80, 82, reserved=frozenset({80})),
    AllocatedPorts(80, 99, per_namespace=2),
)


@given(st.sampled_from(RULES), st.lists(st.tuples(models, numbers), max_size=30))
def test_nobody_has_a_port_of_another_and_whoever_is_told_gets_on(rule, steps):
    table, wanted, said = ports(rule), {}, {}
    for model, port in steps:
        wanted[model] = port
        due = [model]
        for _ in range(100):
            if not due:
                break
            one = due.pop()
            settled = table.allocate(one, wanted.get(one), said.get(one), wanted.get)
            due += sorted(settled.affected)
            if settled.port is None:
                said.pop(one, None)
            else:
                assert table.owns(one, settled.port)
                said[one] = settled.port
            due += sorted(table.record(one, AGES[one], said.get(one)))
        assert not due
        assert len(set(said.values())) == len(said) <= getattr(rule, "per_namespace", 3)
        assert not rule.reserved & set(said.values())
    has_room = len(said) < getattr(rule, "per_namespace", 3)
    free = {80, 81, 82} - rule.reserved - set(said.values()) if has_room else set()
    for model, port in wanted.items():
        if port and model not in said:
            assert not (free if table.for_life else free & {port})


@given(st.permutations((80, 81, 82)), st.permutations((80, 81, 82)), st.permutations((A, B, C)))
def test_what_is_asked_for_without_a_conflict_is_reached(before, after, order):
    said, wanted = dict(zip((A, B, C), before, strict=True)), dict(zip((A, B, C), after, strict=True))
    table = ports(ServicePorts(), **{model.name: port for model, port in said.items()})
    for model in order:
        settled = table.allocate(model, wanted[model], said[model], wanted.get)
        assert (settled.port, settled.refusal) == (wanted[model], None)
        table.record(model, AGES[model], settled.port)
