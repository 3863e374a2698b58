"""The Service that a model has at the gateway: what is written next, from what is there."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest

from controller.api.kubernetes.endpoints import ENDPOINT_CONTROLLER, MIRRORING_CONTROLLER
from controller.api.kubernetes.fronting import CONTROLLER_CLASS, SLICES_OF
from controller.api.kubernetes.objects import MANAGED_BY
from controller.frontend.gateway_service import GatewayServiceFacts, gateway_service_step
from controller.frontend.service_facts import ServiceFacts, owner_of
from controller.frontend.takeover import TakeoverStep
from controller.runtime.writes import Verb
from controller.store.objects import ObjectRef, StoredObject
from tests.support.objects import a_model, a_service, a_slice

MODEL = a_model("chat").stored()
KEY = ObjectRef("Service", "default", "chat-gw")
GATEWAY = ObjectRef("Service", "beamlit-system", "gateway")
READY = a_slice("gateway").in_namespace("beamlit-system").of("IPv4").port(19000).ready("10.9.0.1").stored()
PORT = 10000


def facts(service: StoredObject | None = None, *slices: StoredObject, **more: Any) -> GatewayServiceFacts:
    """A model that asks for the Service `chat-gw`, and is served on a port that every Envoy has."""
    named = ServiceFacts(KEY, service, slices=slices, gateway_service=GATEWAY, gateway=more.pop("gateway", (READY,)))
    named = replace(named, controller_class=more.pop("controller_class", ""))
    return GatewayServiceFacts(MODEL, named, **{"port": PORT, "programmed": True, **more})


def created(step: TakeoverStep) -> list[StoredObject]:
    """What a step creates, as the API server would have it."""
    found = []
    for write in step.writes:
        if write.verb is Verb.CREATE:
            raw = copy.deepcopy(dict(write.content))
            raw["metadata"] |= {"uid": f"uid-of-{write.ref.name}", "resourceVersion": "1", "generation": 1}
            found.append(StoredObject(write.ref, raw))
    return found


def made(**more: Any) -> tuple[StoredObject, ...]:
    """The Service as it is made, and its slices."""
    (service,) = created(gateway_service_step(facts(**more)))
    return service, *created(gateway_service_step(facts(service, **more)))


def test_it_is_made_then_it_leads_to_the_gateway_and_then_nothing_is_left_to_do():
    service, leading = made()
    assert owner_of(service) == (MODEL.ref, MODEL.uid)
    assert service.raw["spec"] == {
        "ports": [{"name": "http", "protocol": "TCP", "port": 80, "appProtocol": "http"}],
        "ipFamilies": ["IPv4"],
        "ipFamilyPolicy": "SingleStack",
    }
    assert leading.raw["ports"] == [{"name": "http", "protocol": "TCP", "port": PORT, "appProtocol": "http"}]
    assert leading.raw["endpoints"] == [{"addresses": ["10.9.0.1"], "conditions": {"ready": True}}]
    assert leading.metadata["labels"][MANAGED_BY] == SLICES_OF
    # It goes with its Service.
    assert leading.metadata["ownerReferences"][0]["uid"] == service.uid
    step = gateway_service_step(facts(service, leading))
    assert (step.reason, step.writes) == ("GatewayService", ())
    assert step.message == "clients of Service default/chat-gw, port 80, are led to the gateway"


def test_until_every_envoy_serves_the_model_it_leads_nowhere():
    service, *_ = made()
    step = gateway_service_step(facts(service, programmed=False))
    assert (step.reason, step.writes) == ("Pending", ())
    assert gateway_service_step(facts(service, port=None)).reason == "Pending"


def test_it_leads_to_the_port_of_before_until_every_envoy_serves_the_next_one():
    service, leading = made()
    moved = facts(service, leading, port=PORT + 1, programmed=False)
    assert gateway_service_step(moved).writes == ()
    (write,) = gateway_service_step(replace(moved, programmed=True)).writes
    assert (write.verb, write.content["ports"][0]["port"]) == (Verb.PATCH, PORT + 1)


def test_a_model_that_is_not_served_any_more_leads_nowhere():
    service, leading = made()
    step = gateway_service_step(facts(service, leading, port=None))
    assert [(one.verb, one.ref) for one in step.writes] == [(Verb.DELETE, leading.ref)]


def test_a_gateway_that_is_not_ready_is_not_ready_there():
    service, leading = made()
    away = a_slice("gateway").in_namespace("beamlit-system").of("IPv4").port(19000).not_ready("10.9.0.1").stored()
    step = gateway_service_step(facts(service, leading, gateway=(away,)))
    assert step.reason == "GatewayNotReady"
    assert [one.content["endpoints"][0]["conditions"] for one in step.writes] == [{"ready": False}]


def test_where_the_gateway_has_two_families_so_has_the_service():
    six = a_slice("gateway", "six").in_namespace("beamlit-system").of("IPv6").port(19000).ready("fd00:9::1").stored()
    service, *leading = made(gateway=(READY, six))
    assert (service.raw["spec"]["ipFamilies"], len(leading)) == (["IPv4", "IPv6"], 2)
    empty = a_slice("gateway", "six").in_namespace("beamlit-system").of("IPv6").port(19000).stored()
    assert made(gateway=(READY, empty))[0].raw["spec"]["ipFamilies"] == ["IPv4"]


THEIRS = a_service("chat-gw").port(80).selecting(app="chat").stored()


@pytest.mark.parametrize(
    "owner",
    [
        None,
        {"apiVersion": "apps/v1", "kind": "Deployment", "name": "chat", "uid": MODEL.uid, "controller": True},
        {
            "apiVersion": MODEL.raw["apiVersion"],
            "kind": MODEL.ref.kind,
            "name": "other",
            "uid": "1",
            "controller": True,
        },
        # Somebody's note of a relation, and no work of ours.
        {"apiVersion": MODEL.raw["apiVersion"], "kind": MODEL.ref.kind, "name": "chat", "uid": MODEL.uid},
    ],
)
def test_a_service_that_was_not_made_for_the_model_is_left_alone(owner):
    raw = copy.deepcopy(dict(THEIRS.raw))
    if owner:
        raw["metadata"]["ownerReferences"] = [owner]
    step = gateway_service_step(facts(StoredObject(THEIRS.ref, raw)))
    assert (step.reason, step.writes) == ("NameTaken", ())
    assert "was not made for this model: give spec.gatewayService another name" in step.message


def test_that_of_a_former_model_of_the_name_is_waited_for():
    service, leading = made()
    again = replace(facts(service, leading), model=StoredObject(MODEL.ref, _with_uid(MODEL.raw, "another")))
    step = gateway_service_step(again)
    assert (step.reason, step.writes) == ("Pending", ())
    assert "that of a former model of this name" in step.message


def _with_uid(raw: Any, uid: str) -> dict[str, Any]:
    return {**raw, "metadata": {**raw["metadata"], "uid": uid}}


def test_whoever_changes_where_it_leads_is_set_right_and_whatever_else_he_changes_stays():
    service, leading = made()
    raw = copy.deepcopy(dict(service.raw))
    raw["spec"] |= {"selector": {"app": "other"}, "ports": [{"name": "http", "port": 8080}], "type": "LoadBalancer"}
    (write,) = gateway_service_step(facts(StoredObject(KEY, raw), leading)).writes
    assert (write.verb, write.content["spec"].keys()) == (Verb.PATCH, {"selector", "ports"})
    raw["spec"] |= {"selector": None, "ports": [{**service.raw["spec"]["ports"][0], "nodePort": 30080}]}
    assert gateway_service_step(facts(StoredObject(KEY, raw), leading)).writes == ()


def test_what_kubernetes_wrote_while_somebody_gave_it_a_selector_goes():
    service, leading = made()
    left = a_slice("chat-gw", "left").port(8080).written_by(ENDPOINT_CONTROLLER).ready("10.8.0.1").stored()
    (write,) = gateway_service_step(facts(service, leading, left)).writes
    assert (write.verb, write.ref) == (Verb.DELETE, left.ref)


def beside(name: str = "mirrored", writer: str = MIRRORING_CONTROLLER, port: str = "http", family: str = "IPv4") -> Any:
    return a_slice("chat-gw", name).of(family).port(8080, port).written_by(writer)


@pytest.mark.parametrize("writer", [ENDPOINT_CONTROLLER, MIRRORING_CONTROLLER])
def test_it_is_not_made_while_kubernetes_has_something_of_a_former_service_of_the_name(writer):
    step = gateway_service_step(facts(None, beside("old", writer).ready("10.8.0.1").stored()))
    assert (step.reason, step.writes) == ("Pending", ())
    assert step.message.endswith("of that name: EndpointSlice default/chat-gw-old")
    # Nobody removes what somebody wrote by hand.
    (write,) = gateway_service_step(facts(None, beside("by-hand", "me").stored())).writes
    assert write.verb is Verb.CREATE


def test_slices_beside_ours_are_told_with_what_ends_them():
    service, leading = made()
    step = gateway_service_step(facts(service, leading, beside().ready("10.8.0.1").stored()))
    assert (step.reason, step.writes) == ("OtherEndpoints", ())
    assert step.message == (
        "some clients of Service default/chat-gw are led past the gateway: EndpointSlice default/chat-gw-mirrored is "
        "mirrored of its Endpoints; take that away: `kubectl -n default delete endpoints chat-gw`"
    )
    by_hand = [beside(name, "me").ready("10.8.0.1").stored() for name in ("one", "two")]
    told = gateway_service_step(facts(service, leading, *by_hand)).message
    assert told.endswith(
        "EndpointSlice default/chat-gw-one has endpoints of its own, and 1 more; take that away: "
        "`kubectl -n default delete endpointslice chat-gw-one`"
    )


def test_slices_beside_ours_that_lead_nobody_anywhere_are_nobodys_concern():
    service, leading = made()
    idle = (
        beside("empty"),
        beside("not-ready").not_ready("10.8.0.1"),
        beside("other-port", port="admin").ready("10.8.0.1"),
        beside("other-family", family="IPv6").ready("fd00:8::1"),
    )
    assert gateway_service_step(facts(service, leading, *(one.stored() for one in idle))).reason == "GatewayService"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"type": "ExternalName", "externalName": "example.com"}, "ExternalName, another name of example.com"),
        ({"clusterIP": "None"}, "headless"),
    ],
)
def test_one_that_leads_its_clients_elsewhere_by_what_it_has_become_is_told_and_stays(spec, words):
    service, leading = made()
    raw = {**service.raw, "spec": {**service.raw["spec"], **spec}}
    step = gateway_service_step(facts(StoredObject(KEY, raw), leading))
    assert (step.reason, step.writes) == ("NotFrontable", ())
    assert words in step.message
    assert "`kubectl -n default delete service chat-gw`" in step.message


def test_a_name_that_is_asked_for_no_more_goes_once_the_other_one_is_made():
    service, _ = made()
    renamed = replace(facts(), others=(replace(service, ref=ObjectRef("Service", "default", "old")),))
    assert [one.verb for one in gateway_service_step(renamed).writes] == [Verb.CREATE, Verb.DELETE]
    step = gateway_service_step(GatewayServiceFacts(MODEL, None, others=(service,)))
    assert [(one.verb, one.ref, one.precondition.uid) for one in step.writes] == [(Verb.DELETE, KEY, service.uid)]


def test_nothing_is_made_for_a_model_on_its_way_out_nor_without_a_gateway():
    leaving = StoredObject(MODEL.ref, {**MODEL.raw, "metadata": {**MODEL.metadata, "deletionTimestamp": "now"}})
    assert gateway_service_step(replace(facts(), model=leaving)).writes == ()
    alone = facts()
    assert alone.named
    step = gateway_service_step(replace(alone, named=replace(alone.named, gateway_service=None)))
    assert (step.reason, step.writes) == ("NoGateway", ())


def test_it_says_whose_class_made_it():
    service, leading = made(controller_class="blue")
    assert [one.metadata["labels"][CONTROLLER_CLASS] for one in (service, leading)] == ["blue", "blue"]
