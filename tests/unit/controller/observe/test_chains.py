"""Models that are each other's remote backend: which of them are a chain, and which a cycle."""

import itertools
from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.frontend.claims import Seniority
from controller.observe.chains import Chains, HostAndPort, Link, places_of
from tests.support.objects import a_model, a_service

A, B, C, D = (a_model(name).ref for name in "abcd")
AGES = {A: "2026-01-01", B: "2026-01-02", C: "2026-01-03", D: "2026-01-04"}


def link(model, behind=None, *, led=True):
    """A model with a Service of its own, whose remote backend is the Service of another one."""
    here = frozenset([HostAndPort(model.name, 80)])
    remote = HostAndPort(behind.name, 80) if behind else None
    return Link(Seniority(AGES[model], "default", model.name), remote, here, here if led else frozenset())


def chains(**behind):
    """Record models in the order of their names."""
    found = Chains()
    for name, other in behind.items():
        ref = a_model(name).ref
        found.record(ref, link(ref, a_model(other).ref if other else None))
    return found


def test_a_chain_is_none_of_a_cycle_and_the_last_one_is_nobodys():
    found = chains(a="b", b="c", c=None)
    assert [found.is_chained(one) for one in (A, B, C)] == [True, True, False]
    assert [found.cut(one) for one in (A, B, C)] == [(), (), ()]


def test_of_a_cycle_the_youngest_does_without_and_who_leads_into_it_keeps_its_remote():
    found = chains(a="b", b="c", c="b")
    assert (found.cut(A), found.cut(B), found.cut(C)) == ((), (), (C, B))
    assert chains(a="a").cut(A) == (A,)


@pytest.mark.parametrize("order", list(itertools.permutations((A, B, C))))
def test_the_order_in_which_they_are_seen_does_not_matter(order):
    found, behind = Chains(), {A: B, B: C, C: A}
    for model in order:
        found.record(model, link(model, behind[model]))
    assert [found.cut(one) for one in (A, B, C)] == [(), (), (C, A, B)]


def test_what_goes_to_the_pods_comes_back_to_nobody():
    found = chains(a="b", b="a")
    assert found.cut(B)
    found.record(A, link(A, B, led=False))
    assert (found.cut(A), found.cut(B)) == ((), ())
    # It may be led to the gateway at any moment, so it may pass it.
    assert found.is_chained(B)


def test_who_is_on_a_cycle_and_who_sends_to_a_model_is_looked_at_again():
    found = chains(a="b", b="c", c=None, d="b")
    assert found.record(C, link(C, A)) == {A, B}
    assert found.record(C, link(C, A)) == frozenset()
    assert found.record(C, link(C)) == {A, B}
    assert found.record(B, None) == {A, D}
    assert [found.is_chained(one) for one in (A, D)] == [False, False]
    assert found.record(B, link(B)) == {A, D}


def test_whatever_happened_in_whatever_order_nothing_of_it_is_left():
    seen = Chains()
    for behind in itertools.product((A, B, C, None), repeat=3):
        told = {}
        for model, other in zip((A, B, C), behind, strict=True):
            before = {one: (seen.cut(one), seen.is_chained(one)) for one in (A, B, C)}
            told = seen.record(model, link(model, other))
            after = {one: (seen.cut(one), seen.is_chained(one)) for one in (A, B, C)}
            assert {one for one in (A, B, C) if before[one] != after[one]} <= told | {model}
        fresh = Chains()
        for model, other in zip((A, B, C), behind, strict=True):
            fresh.record(model, link(model, other))
        assert [seen.cut(one) for one in (A, B, C)] == [fresh.cut(one) for one in (A, B, C)]
    for model in (A, B, C):
        seen.record(model, None)
    assert not any((seen._links, seen._at, seen._led, seen._sending))


def test_a_long_way_is_not_followed_to_its_end():
    found, many = Chains(), [a_model(f"m{number}").ref for number in range(1000)]
    for model, behind in zip(many, (*many[1:], many[0]), strict=True):
        here = frozenset([HostAndPort(model.name, 80)])
        found.record(model, Link(Seniority("2026", "default", model.name), HostAndPort(behind.name, 80), here, here))
    assert not any(found.cut(one) for one in many)
    assert all(found.is_chained(one) for one in many)


PLACES = [HostAndPort(name, 80) for name in "xyz"]
LINKS = st.builds(
    lambda remote, places, led: (remote, frozenset(places), frozenset(places & led)),
    st.sampled_from([*PLACES, None]),
    st.sets(st.sampled_from(PLACES)),
    st.sets(st.sampled_from(PLACES)),
)


@given(st.lists(st.tuples(st.sampled_from([A, B, C, D]), LINKS | st.none()), max_size=10))
def test_wherever_models_are_all_for_whom_something_changed_are_looked_at_again(steps):
    """Several at one place as well, by addresses that somebody gave to his Service."""
    seen = Chains()
    for model, given_ in steps:
        before = {one: (seen.cut(one), seen.is_chained(one)) for one in (A, B, C, D)}
        link = Link(Seniority(AGES[model], "default", model.name), *given_) if given_ else None
        told = seen.record(model, link)
        after = {one: (seen.cut(one), seen.is_chained(one)) for one in (A, B, C, D)}
        assert {one for one in before if before[one] != after[one]} <= told | {model}


def senders(number, namespace="default"):
    """Models that send to A, and a chain none of them is behind."""
    for each in range(number):
        model = a_model(f"m{each:05}").in_namespace(namespace).ref
        yield model, Link(Seniority("2026", namespace, model.name), HostAndPort("a", 80))


def test_of_many_that_send_to_a_model_all_hear_that_it_is_there_and_that_it_is_gone():
    found = Chains()
    for model, its in senders(25):
        found.record(model, its)
    for now in (link(A), None):
        soon = found.record(A, now)
        told = [found.next_to_tell() for _ in range(15)]
        assert len(soon) == 10
        assert soon | set(told) == {model for model, _ in senders(25)}
        assert (found.next_to_tell(), found.tells) == (None, False)
    # Who is gone meanwhile is not told, and is in nobody's way.
    found.record(A, link(A))
    for model, _ in senders(25):
        found.record(model, None)
    found.record(A, None)
    assert found.next_to_tell() is None
    assert not any((found._links, found._at, found._led, found._sending, found._told, found._untold))


def test_those_who_send_to_models_of_two_namespaces_hear_of_it_in_turns():
    found = Chains()
    for namespace in ("team", "default"):
        for model, its in senders(100, namespace):
            found.record(model, Link(its.age, HostAndPort(namespace, 80)))
    for namespace in ("team", "default"):
        model, here = a_model("a").in_namespace(namespace).ref, frozenset([HostAndPort(namespace, 80)])
        found.record(model, Link(Seniority("2026", namespace, "a"), None, here))
    assert {found.next_to_tell().namespace for _ in range(20)} == {"team", "default"}


def test_what_an_edit_costs_does_not_grow_with_those_who_send_there_or_are_there_too():
    looked_up = Counter()

    class Place(HostAndPort):
        __slots__ = ()

        def __hash__(self):
            looked_up["places"] += 1
            return super().__hash__()

    def costs(many):
        """How often a place is looked up while a model, to which many send, is edited, goes and comes back."""
        found, here = Chains(), HostAndPort("a", 80)
        ring = [a_model(f"ring{number}").ref for number in range(16)]
        for one, other in itertools.pairwise([A, *ring]):
            place = Place(other.name, 80)
            found.record(one, Link(Seniority("2026", "default", one.name), place, frozenset([here]), frozenset([here])))
            here = place
        for model, its in senders(many):
            found.record(model, Link(its.age, Place("a", 80)))
        for number in range(many):
            model, at = a_model(f"at{number:05}").ref, frozenset([Place("ring3", 80)])
            found.record(model, Link(Seniority("2026", "default", model.name), None, at, at))
        looked_up.clear()
        elsewhere = replace(link(A), remote=HostAndPort("ring1", 80))
        assert found.record(A, elsewhere) == frozenset()
        assert len(found.record(A, None)) == 10
        assert len(found.record(A, link(A))) == 10
        return looked_up["places"]

    assert costs(500) == costs(50)


@pytest.mark.parametrize(
    "host", ["b.team", "B.team.svc.", "b.team.svc.cluster.local", "10.96.0.7", "fd00:0::7", "::ffff:10.96.0.7"]
)
def test_a_service_is_known_by_its_names_and_addresses(host):
    service = a_service("b").port(80)._with(["10.96.0.7", "fd00::7"], "spec", "clusterIPs").parsed()
    assert HostAndPort.of(host, 80) in places_of("team", "b", service, 80, "beamlit-system")
    assert HostAndPort.of(host, 81) not in places_of("team", "b", service, 80, "beamlit-system")


def test_its_name_alone_is_that_for_the_envoys_beside_it():
    service = a_service("b").port(80).headless().parsed()
    assert HostAndPort("b", 80) not in places_of("team", "b", service, 80, "beamlit-system")
    assert HostAndPort("b", 80) in places_of("team", "b", service, 80, "team")
    assert {one.host for one in places_of("team", "b", service, 80, None)} == {
        "b.team",
        "b.team.svc",
        "b.team.svc.cluster.local",
    }
