"""Which models an object concerns."""

import pytest

from controller.observe.index import ObjectIndex
from controller.store.protocol import Batch
from tests.support.indexed import index_of
from tests.support.objects import a_deployment, a_model, a_service, a_slice

MODEL = a_model().ref


def changed(index: ObjectIndex, *objects, version="2"):
    return index.apply(Batch(changed=tuple(one.stored(version=version) for one in objects)))


def test_a_model_concerns_itself():
    index = ObjectIndex()
    assert changed(index, a_model()) == {MODEL}
    assert index.intent(MODEL).intent == a_model().intent()


def test_an_object_that_nobody_refers_to_concerns_nobody():
    assert changed(index_of(a_model()), a_service(), a_slice(), a_deployment()) == frozenset()


def test_what_a_model_refers_to_concerns_it_even_before_it_exists():
    index = index_of(a_model())
    index.refers(MODEL, [a_service().ref, a_deployment().ref])
    assert changed(index, a_service()) == {MODEL}
    assert changed(index, a_deployment()) == {MODEL}
    assert index.apply(Batch(deleted=(a_service().ref,))) == {MODEL}


def test_a_slice_concerns_who_refers_to_its_service():
    index = index_of(a_model(), a_slice())
    index.refers(MODEL, [a_service().ref])
    assert changed(index, a_slice().ready("10.0.0.1")) == {MODEL}
    assert index.apply(Batch(deleted=(a_slice().ref,))) == {MODEL}
    assert list(index.slices("default", "a")) == []


def test_a_slice_that_moves_to_another_service_concerns_both():
    index = index_of(a_model(), a_model("b"), a_slice())
    index.refers(MODEL, [a_service().ref])
    index.refers(a_model("b").ref, [a_service("b").ref])
    assert changed(index, a_slice("b").named(a_slice().ref.name)) == {MODEL, a_model("b").ref}


@pytest.mark.parametrize(
    "other", [a_model("b"), a_model("b").at_gateway("else"), None], ids=["no more", "another", "gone"]
)
def test_a_model_concerns_who_refers_to_the_service_that_it_asks_for(other):
    """One with pods is at the gateway for as long as the model that owns it asks for it."""
    asking = a_model("b").at_gateway("s")
    service = a_service("s").selecting(run="x").owned_by(asking.stored())
    index = index_of(a_model(), asking, service)
    index.refers(MODEL, [service.ref])
    assert index.is_at_gateway(service.ref)
    said = index.apply(Batch(deleted=(asking.ref,))) if other is None else changed(index, other)
    assert said == {MODEL, asking.ref}
    assert not index.is_at_gateway(service.ref)
    assert changed(index, asking, version="3") == {MODEL, asking.ref}
    assert index.is_at_gateway(service.ref)
    assert changed(index, asking.annotated(note="x"), version="4") == {asking.ref}


def test_new_references_take_the_place_of_the_old():
    index = index_of(a_model())
    index.refers(MODEL, [a_service().ref])
    index.refers(MODEL, [a_service("b").ref])
    assert changed(index, a_service()) == frozenset()
    assert changed(index, a_service("b")) == {MODEL}
    index.refers(MODEL, ())
    assert changed(index, a_service("b"), version="3") == frozenset()


def test_the_same_version_again_concerns_nobody():
    index = index_of(a_model())
    assert index.apply(Batch(changed=(a_model().stored(),))) == frozenset()


def test_a_full_list_takes_away_what_it_lacks():
    index = index_of(a_model(), a_model("b"))
    assert index.apply(Batch(changed=(a_model().stored(),), complete=True)) == {a_model("b").ref}
    assert index.intent(a_model("b").ref) is None


def test_what_another_writer_forced_in_counts_as_absent():
    index = index_of(a_service().port(0))
    assert index.service("default", "a") is None
    changed(index, a_service().port(80))
    assert index.service("default", "a").spec.ports[0].port == 80


def test_a_model_that_cannot_be_read_is_not_one_that_is_gone():
    index = index_of(a_model().fronting("a")._with("yes", "spec", "enabled"))
    seen = index.intent(MODEL)
    assert seen.intent is None
    assert [str(error) for error in seen.errors] == ["spec.enabled: must be true or false, is a string"]
    index.apply(Batch(deleted=(MODEL,)))
    assert index.intent(MODEL) is None


def test_what_can_be_read_of_a_strange_status_is_kept():
    index = ObjectIndex()
    index.apply(Batch(changed=(a_model().stored(status={"servingPort": 10000, "history": "long", "split": {}}),)))
    status = index.intent(MODEL).status
    assert (status.serving_port, status.history, status.split) == (10000, (), None)


def test_a_model_of_another_class_is_not_there_for_this_controller():
    plain, blue, broken = a_model("plain"), a_model("blue"), a_model("broken")
    blue.raw["spec"]["controllerClass"] = "blue"
    broken.raw["spec"] = {"controllerClass": "blue"}
    for index, there in (
        (ObjectIndex(""), {plain.ref}),
        (ObjectIndex("blue"), {blue.ref, broken.ref}),
        (ObjectIndex(), {plain.ref, blue.ref, broken.ref}),
    ):
        changed(index, plain, blue, broken)
        assert set(index.models()) == there
        assert {one.ref for one in (plain, blue, broken) if index.intent(one.ref)} == there
