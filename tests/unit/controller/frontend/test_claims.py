"""What only one model may have goes to the oldest that asks; a port of a Service to those its namespace first."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from controller.frontend.claims import Claims, ModelClaim, ServicePortClaim
from tests.support.objects import a_model

A, B, C = a_model("a").ref, a_model("b").ref, a_model("c").ref
OLD, NEW, NEWER = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z", "2026-01-03T00:00:00Z"
HTTP = ServicePortClaim("default", "s", "http")
NAME = ModelClaim("default", "production", "llama")


def test_the_older_wins_whoever_asks_first():
    claims = Claims()
    assert claims.claim(B, NEW, [HTTP]) == frozenset()
    assert claims.winner(HTTP) == B
    assert claims.claim(A, OLD, [HTTP]) == {B}
    assert claims.winner(HTTP) == A


def test_of_two_that_are_equally_old_the_name_decides():
    claims = Claims()
    claims.claim(B, OLD, [HTTP])
    claims.claim(A, OLD, [HTTP])
    assert claims.winner(HTTP) == A


def test_who_asks_in_vain_changes_nothing_for_others():
    claims = Claims()
    claims.claim(A, OLD, [HTTP])
    assert claims.claim(B, NEW, [HTTP]) == frozenset()


def test_when_the_winner_goes_the_next_takes_over_and_the_others_hear_of_it():
    claims = Claims()
    for model, created in ((A, OLD), (B, NEW), (C, NEWER)):
        claims.claim(model, created, [HTTP])
    assert claims.claim(A, "", ()) == {B}
    assert claims.winner(HTTP) == B
    assert claims.tells
    assert [claims.next_to_tell(), claims.next_to_tell()] == [C, None]
    assert not claims.tells


def test_when_the_winner_asks_for_something_else_the_next_takes_over():
    claims = Claims()
    claims.claim(A, OLD, [HTTP, NAME])
    claims.claim(B, NEW, [HTTP])
    assert claims.claim(A, OLD, [NAME]) == {B}
    assert (claims.winner(HTTP), claims.winner(NAME)) == (B, A)


def test_what_nobody_asks_for_has_no_winner():
    claims = Claims()
    assert claims.winner(HTTP) is None
    claims.claim(A, OLD, [HTTP])
    claims.claim(A, OLD, ())
    assert claims.winner(HTTP) is None


def test_a_port_is_one_thing_whether_its_number_is_known_or_not():
    assert ServicePortClaim("default", "s", "http", 80) == HTTP
    assert str(ServicePortClaim("default", "s", "http", 80)) == "port 80 of Service default/s"
    assert str(HTTP) == "port http of Service default/s"
    assert str(ServicePortClaim("default", "s", "")) == "the port of Service default/s"


FOREIGN = a_model("a").in_namespace("z").ref
"""One of another namespace than the Service is in."""


def test_who_is_in_the_namespace_of_the_service_goes_before_an_older_one_of_another():
    claims = Claims()
    claims.claim(FOREIGN, OLD, [HTTP])
    assert claims.winner(HTTP) == FOREIGN
    assert claims.claim(C, NEWER, [HTTP]) == {FOREIGN}
    assert claims.winner(HTTP) == C
    assert claims.claim(FOREIGN, "2020-01-01T00:00:00Z", [HTTP]) == frozenset()
    assert claims.winner(HTTP) == C
    assert claims.claim(C, NEWER, ()) == {FOREIGN}
    assert claims.winner(HTTP) == FOREIGN


def test_of_two_of_other_namespaces_the_older_wins():
    other = a_model("a").in_namespace("y").ref
    claims = Claims()
    claims.claim(other, NEW, [HTTP])
    claims.claim(FOREIGN, OLD, [HTTP])
    assert claims.winner(HTTP) == FOREIGN


claimants = st.dictionaries(
    st.builds(
        lambda name, at: a_model(name).in_namespace(at).ref,
        st.sampled_from("abc"),
        st.sampled_from(["default", "y", "z"]),
    ),
    st.sampled_from([OLD, NEW, NEWER]),
    min_size=1,
)


@given(claimants, st.randoms(use_true_random=False))
def test_in_whatever_order_they_come_nobody_elsewhere_wins_while_one_at_home_asks(created, chance):
    order = list(created)
    chance.shuffle(order)
    claims = Claims()
    for model in order:
        claims.claim(model, created[model], [HTTP])
    at_home = [one for one in order if one.namespace == HTTP.namespace]
    assert claims.winner(HTTP) == min(at_home or order, key=lambda one: (created[one], one.namespace, one.name))


STEPS = st.tuples(st.sampled_from([A, B, C]), st.sets(st.sampled_from([HTTP, NAME])), st.integers(0, 3))


@given(st.lists(STEPS, max_size=20))
def test_the_winner_depends_only_on_who_asks_now_and_all_hear_of_it(steps):
    created = {A: NEWER, B: OLD, C: NEW}
    claims, asked, known = Claims(), {}, {}

    def look_at(*models):
        known.update({one: {thing: claims.winner(thing) for thing in asked[one]} for one in models})

    for model, things, tells in steps:
        before = {thing: claims.winner(thing) for thing in (HTTP, NAME)}
        soon = claims.claim(model, created[model], things)
        asked[model] = things
        for thing in (HTTP, NAME):
            asking = [one for one in asked if thing in asked[one]]
            assert claims.winner(thing) == min(asking, key=created.__getitem__, default=None)
            if claims.winner(thing) != before[thing]:
                assert soon >= {one for one in (claims.winner(thing), before[thing]) if one} - {model}
        look_at(model, *soon)
        look_at(*filter(None, (claims.next_to_tell() for _ in range(tells))))
    while loser := claims.next_to_tell():
        look_at(loser)
    assert known == {one: {thing: claims.winner(thing) for thing in asked[one]} for one in asked}


def test_what_a_claim_costs_hardly_grows_with_those_who_ask_for_the_same():
    compared = Counter()

    class Moment(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other):
            compared["moments"] += 1
            return str(self) == str(other)

    def costs(many):
        """How often moments are compared while one asks again, gives it up, and the winner goes."""
        claims, models = Claims(), [a_model(f"m{number}").ref for number in range(many)]
        for number, model in enumerate(models):
            claims.claim(model, Moment(f"{number:05}"), [HTTP, NAME])
        compared.clear()
        claims.claim(models[-1], Moment(f"{many - 1:05}"), [HTTP, NAME])
        assert claims.winner(HTTP) == models[0]
        claims.claim(models[-1], Moment(f"{many - 1:05}"), [NAME])
        soon = claims.claim(models[0], "", ())
        assert (claims.winner(HTTP), len(soon), claims.next_to_tell()) == (models[1], 1, models[2])
        return compared["moments"]

    assert costs(5_000) <= 2 * costs(500)


def test_losers_of_two_namespaces_hear_of_it_in_turns():
    claims = Claims()
    for namespace in "ab":
        for number in range(100):
            model = a_model(f"m{number:02}").in_namespace(namespace).ref
            claims.claim(model, OLD, [ServicePortClaim(namespace, "s", "http")])
    for namespace in "ab":
        claims.claim(a_model("m00").in_namespace(namespace).ref, "", ())
    told = [claims.next_to_tell().namespace for _ in range(20)]
    assert set(told) == {"a", "b"}
