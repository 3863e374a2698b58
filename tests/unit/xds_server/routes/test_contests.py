"""Of several statuses that say one port, the controller and the xDS server believe the same one when they start."""

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st

from controller.api.contract.route import RouteKey, RouteKind
from controller.frontend.claims import Seniority
from controller.frontend.ports import AllocatedPorts, GatewayPorts
from controller.store.objects import ObjectRef
from xds_server.routes.contests import Contests
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
