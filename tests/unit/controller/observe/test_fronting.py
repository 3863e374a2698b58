"""What a taken-over Service is to those who only read it, and which Services a status is about."""

from controller.api.kubernetes.endpoints import PodsOnly, TrustAll
from controller.api.kubernetes.fronting import FRONTED_KEY, SLICES_OF
from controller.observe.fronting import services_in
from controller.store.objects import ObjectRef
from tests.support.objects import a_service, a_slice

POD, GATEWAY = "10.8.0.1", "10.9.0.1"


def test_the_selector_of_a_taken_over_service_is_that_of_its_owner():
    taken = a_service("chat").port(80).selecting(app="chat", **{FRONTED_KEY: "true"})
    assert taken.parsed().spec.selector == {"app": "chat"}
    # One whose owner took the selector away has none, as anybody's.
    assert a_service("chat").port(80).selecting(**{FRONTED_KEY: "true"}).parsed().spec.selector == {}


def test_our_slices_have_no_replicas_and_are_nobodys_mistake():
    ours = a_slice("chat", "ours").port(10000).written_by(SLICES_OF).ready(GATEWAY).parsed()
    theirs = a_slice("chat", "theirs").port(8080).written_by("endpointslice-controller.k8s.io").ready(POD).parsed()
    for guard in (PodsOnly(), TrustAll()):
        for custom in (False, True):
            admitted = guard([ours, theirs], custom=custom)
            assert (admitted.slices, admitted.refused) == ((theirs,), ())


def test_a_status_names_the_service_that_is_taken_over_and_the_one_that_clients_of_its_route_know():
    takeover = {"namespace": "team", "service": "new", "portName": ""}
    local = {"namespace": "team", "service": "chat-beamlit", "fronted": "chat"}
    named = services_in({"takeover": takeover, "route": {"local": local}})
    assert named == {ObjectRef("Service", "team", "new"), ObjectRef("Service", "team", "chat")}
    assert services_in({"route": {"local": {"namespace": "team", "service": "chat"}}}) == {
        ObjectRef("Service", "team", "chat")
    }
    # What somebody's hand wrote there names nothing, and breaks nothing.
    assert services_in({"takeover": {"namespace": 1}, "route": {"local": "chat"}}) == frozenset()
    assert services_in({"takeover": "chat", "route": []}) == frozenset()
