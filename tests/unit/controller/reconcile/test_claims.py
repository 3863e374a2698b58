"""Who may listen on a port."""

from hypothesis import given
from hypothesis import strategies as st

from controller.reconcile.claims import Claims
from tests.support.objects import a_model

A, B, C = a_model("a").ref, a_model("b").ref, a_model("c").ref


def test_who_asks_first_gets_what_is_free():
    claims = Claims()
    assert claims.ask(A, 80) == frozenset()
    assert claims.holder(80) == A


def test_the_holder_keeps_it():
    claims = Claims()
    claims.ask(A, 80)
    claims.ask(B, 80)
    claims.ask(A, 80)
    assert claims.holder(80) == A


def test_what_is_given_up_goes_to_one_that_waits_once_it_asks_again():
    claims = Claims()
    claims.ask(A, 80)
    claims.ask(B, 80)
    claims.ask(C, 80)
    assert claims.give_up(A) == {B, C}
    assert claims.holder(80) is None
    claims.ask(C, 80)
    claims.ask(B, 80)
    assert claims.holder(80) == C


def test_who_moves_to_another_port_frees_the_one_it_had():
    claims = Claims()
    claims.ask(A, 80)
    claims.ask(B, 80)
    assert claims.ask(A, 81) == {B}
    assert (claims.holder(80), claims.holder(81)) == (None, A)


def test_who_waits_for_a_port_keeps_the_one_it_has():
    claims = Claims()
    claims.ask(A, 80)
    claims.ask(B, 81)
    assert claims.ask(B, 80) == frozenset()
    assert (claims.holder(80), claims.holder(81)) == (A, B)
    assert claims.give_up(A) == {B}
    assert claims.ask(B, 80) == frozenset()
    assert (claims.holder(80), claims.holder(81)) == (B, None)


def test_who_gives_up_no_longer_waits():
    claims = Claims()
    claims.ask(A, 80)
    claims.ask(B, 80)
    claims.give_up(B)
    assert claims.give_up(A) == frozenset()


def test_who_has_nothing_gives_up_nothing():
    assert Claims().give_up(A) == frozenset()


asking = st.tuples(st.sampled_from([A, B, C]), st.sampled_from([80, 81, None]))


@given(st.lists(asking, max_size=30))
def test_whoever_is_told_of_a_free_port_gets_one_and_nobody_holds_two(steps):
    claims, wanted = Claims(), {}
    for model, port in steps:
        wanted[model] = port
        due = [model]
        while due:
            one = due.pop()
            port_of_one = wanted.get(one)
            due += sorted(claims.ask(one, port_of_one) if port_of_one else claims.give_up(one))
    for port in (80, 81):
        asking = {model for model, wish in wanted.items() if wish == port}
        assert (claims.holder(port) is not None) >= bool(asking)
    holders = [claims.holder(port) for port in (80, 81)]
    assert holders[0] is None or holders[0] != holders[1]
