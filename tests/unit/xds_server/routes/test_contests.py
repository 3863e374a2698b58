"""Of several statuses that say one port, the controller and the xDS server believe the same one when they start."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from controller.api.contract.route import RouteKey, RouteKind
from controller.frontend.claims import Seniority
from controller.frontend.ports import AllocatedPorts, GatewayPorts
from controller.store.objects import ObjectRef
from xds_server.routes.contests import LEFT, Contender, Contests
from xds_server.routes.validation import claims_of

MODEL = RouteKind.MODEL
PORTS = (10_000, 10_001)


@given(
    st.dictionaries(
        st.tuples(st.sampled_from("ab"), st.sampled_from("mnop")),
        st.tuples(st.sampled_from("12"), st.sampled_from(PORTS), st.sampled_from([None, *PORTS])),
    ),
    st.randoms(use_true_random=False),
)
def test_both_programs_have_the_same_order(models, random):
    controller, server = GatewayPorts(AllocatedPorts()), Contests()
    for (namespace, name), (created, said, fixed) in random.sample(list(models.items()), len(models)):
        ref = ObjectRef(MODEL, namespace, name)
        controller.record(ref, Seniority(created, namespace, name), said, fixed)
    for (namespace, name), (created, said, fixed) in models.items():
        key = RouteKey(MODEL, namespace, name)
        route = SimpleNamespace(port=said, hosts=(), tls=None, local=SimpleNamespace(namespace=namespace))
        server.claim(key, claims_of(key, route, SimpleNamespace(created=created, fixed_port=fixed)))
    for port in PORTS:
        winner = server.winner(port)
        if winner is not None:
            assert controller.owns(ObjectRef(MODEL, winner.namespace, winner.name), port)


class Created(str):
    """When an object was made; counts how often it was compared."""

    compared = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Created.compared += 1
        return str.__eq__(self, other)

    def __lt__(self, other):
        Created.compared += 1
        return str.__lt__(self, other)


def compared_for_one_more(crowd):
    """Count what one model more costs that says to have a port, where a crowd says so."""
    contests = Contests()
    for number in range(crowd):
        key = RouteKey(MODEL, "crowd", f"m{number}")
        contests.claim(key, {80: Contender(1, True, False, Created(f"{number:06}"), key)})
    key, Created.compared = RouteKey(MODEL, "b", "b"), 0
    contests.claim(key, {80: Contender(1, True, False, Created("5"), key)})
    contests.claim(key, {})
    assert contests.winner(80) == RouteKey(MODEL, "crowd", "m0")
    return Created.compared


def test_a_crowd_that_says_to_have_one_port_is_not_gone_through_for_each():
    assert compared_for_one_more(4_000) < 2 * compared_for_one_more(40) + 40


contenders = st.builds(
    lambda namespace, name, *rest: Contender(*rest, key=RouteKey(MODEL, namespace, name)),
    st.sampled_from("abc"),
    st.sampled_from("mn"),
    st.sampled_from([0, 1, LEFT]),
    st.booleans(),
    st.booleans(),
    st.sampled_from("12"),
)


@given(st.lists(st.tuples(contenders, st.booleans())))
def test_of_who_is_there_the_first_has_it_and_none_of_another_namespace_what_clients_are_led_to(steps):
    contests, there = Contests(), {}
    for one, stays in steps:
        contests.claim(one.key, {80: one} if stays else {})
        there.pop(one.key, None)
        if stays:
            there[one.key] = one
        led = {each.key.namespace for each in there.values() if each.rank == LEFT}
        behind = {each: bool(led) and each.newcomer and each.key.namespace not in led for each in there.values()}
        first = min(there.values(), key=lambda each: (behind[each], each), default=None)
        assert contests.winner(80) == (first and first.key)
