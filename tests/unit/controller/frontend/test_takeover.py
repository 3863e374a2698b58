"""Taking over a Service and giving it back, step by step, in a small cluster."""

from __future__ import annotations

import copy
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.api.kubernetes.fronting import FINALIZER, FRONTED_KEY, GATEWAY_PORTS, NARROWED, shadow_name
from controller.api.kubernetes.objects import MANAGED_BY
from controller.api.timing import REAL
from controller.frontend.service_facts import ENDPOINT_CONTROLLER, Stood
from controller.frontend.takeover import next_step
from controller.runtime.writes import Verb
from controller.store.objects import ObjectRef
from tests.support.taken_over import GATEWAY, SERVICE, SHADOW, Model, Pod, SmallCluster

TOLERATED = REAL.takeover.resets_tolerated


def taken_over(**spec) -> SmallCluster:
    cluster = SmallCluster.with_chat(**spec)
    cluster.settle()
    assert cluster.is_narrowed
    return cluster


def owned(cluster: SmallCluster) -> dict[str, list[str]]:
    """Where our slices of the Service lead: port name to addresses with ports."""
    found: dict[str, list[str]] = {}
    for one in cluster.slices_of(SERVICE):
        if one.metadata["labels"][MANAGED_BY] != ENDPOINT_CONTROLLER:
            for port in one.raw["ports"]:
                for endpoint in one.raw["endpoints"]:
                    found.setdefault(port["name"], []).append(f"{endpoint['addresses'][0]}:{port['port']}")
    return {name: sorted(addresses) for name, addresses in found.items()}


def is_fully_restored(cluster: SmallCluster) -> bool:
    leftover = [ref for ref in cluster.objects if ref == SHADOW or "-beamlit-" in ref.name]
    return (
        not cluster.is_narrowed and not leftover and all(one.service != SHADOW.name for one in cluster.models.values())
    )


def test_a_service_is_taken_over_in_an_order_that_always_has_endpoints():
    cluster = SmallCluster.with_chat()
    order, answered = [], []
    for _ in range(30):
        cluster.kubernetes()
        cluster.leader()
        cluster.envoys()
        for write in cluster.do(cluster.step()):
            order.append((write.verb, write.ref.kind, write.ref.name))
            answered.append(cluster.answers())
        cluster.now += timedelta(seconds=1)
    (slice_name,) = {name for _, kind, name in order if kind == "EndpointSlice"}
    assert order == [
        (Verb.PATCH, "ModelDeployment", "chat"),
        (Verb.CREATE, "Service", SHADOW.name),
        (Verb.CREATE, "EndpointSlice", slice_name),
        (Verb.PATCH, "Service", "chat"),
        (Verb.RELEASE_FIELDS, "Service", "chat"),
        (Verb.PATCH, "Service", SHADOW.name),
    ]
    assert all(answered)
    assert owned(cluster) == {"http": ["10.9.0.1:10000"]}
    assert cluster.objects[SHADOW]["spec"]["selector"] == {"app": "chat"}
    assert cluster.objects[SHADOW]["spec"]["clusterIP"] == "None"
    assert cluster.step().reason == "TakenOver"


def test_a_service_is_given_back_as_it_was():
    cluster = SmallCluster.with_chat()
    before = copy.deepcopy(cluster.objects[SERVICE])
    cluster.settle()
    cluster.models["chat"].asks = False
    order = []
    for _ in range(30):
        cluster.kubernetes()
        cluster.leader()
        cluster.envoys()
        for write in cluster.do(cluster.step()):
            order.append((write.verb, write.ref.kind))
            assert cluster.answers()
        cluster.finalizers()
        cluster.now += timedelta(seconds=1)
    assert order == [
        (Verb.PATCH, "Service"),
        (Verb.RELEASE_FIELDS, "Service"),
        (Verb.PATCH, "Service"),
        (Verb.DELETE, "EndpointSlice"),
        (Verb.PATCH, "Service"),
        (Verb.RELEASE_FIELDS, "Service"),
        (Verb.DELETE, "Service"),
    ]
    after = cluster.objects[SERVICE]
    before["metadata"]["resourceVersion"] = after["metadata"]["resourceVersion"]
    assert after == before
    assert FINALIZER not in (cluster.objects[cluster.models["chat"].ref]["metadata"].get("finalizers") or ())


def test_from_the_moment_it_is_given_back_for_good_no_field_of_it_is_ours():
    cluster = taken_over()
    cluster.models["chat"].wanted = False
    for write in cluster.do(cluster.step()):
        assert write.verb is not Verb.DELETE
    assert not cluster.is_narrowed
    assert not cluster.selector_is_ours
    # Nor is it anybody's reset if the model asks for it again right away.
    cluster.settle()
    assert cluster.is_narrowed
    assert "beamlit.com/resets" not in cluster.objects[SHADOW]["metadata"]["annotations"]


def test_our_slices_stay_until_kubernetes_own_have_every_pod_however_long_that_takes():
    cluster = taken_over()
    cluster.models["chat"].wanted = False
    for _ in cluster.do(cluster.step()):
        pass
    assert not cluster.is_narrowed
    # Kubernetes has not looked yet.
    step = next_step(cluster.facts(), Stood(cluster.now))
    assert step.writes == ()
    assert "do not have all pods yet" in step.message
    cluster.kubernetes()
    assert {write.verb for write in next_step(cluster.facts(), Stood(cluster.now)).writes} == {Verb.DELETE}


def test_a_deleted_model_goes_once_its_service_is_as_it_was():
    cluster = taken_over()
    cluster.delete_model("chat")
    ref = cluster.models["chat"].ref
    for _ in range(30):
        cluster.kubernetes()
        cluster.leader()
        for _ in cluster.do(cluster.step()):
            assert cluster.answers()
            # It stays until nobody is led to its port any more.
            assert ref in cluster.objects or not (cluster.is_narrowed or owned(cluster))
        cluster.finalizers()
        cluster.now += timedelta(seconds=1)
    assert ref not in cluster.objects
    assert is_fully_restored(cluster)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"type": "ExternalName", "selector": None}, "ExternalName"),
        ({"clusterIP": "None"}, "headless"),
        ({"selector": None}, "no selector"),
        (
            {"ports": [{"name": "http", "port": 80}, {"name": "dns", "port": 53, "protocol": "UDP"}]},
            "not TCP (53)",
        ),
    ],
)
def test_what_cannot_be_taken_over_is_left_alone_and_says_what_to_do(spec, words):
    cluster = SmallCluster.with_chat(**spec)
    cluster.models["chat"].wanted, cluster.models["chat"].service = True, "chat"
    step = cluster.step()
    assert (step.reason, step.writes) == ("NotFrontable", ())
    assert words in step.message
    assert "frontend: Gateway" in step.message or "Service of their own" in step.message


def test_a_service_that_has_the_gateways_own_pods_is_left_alone():
    cluster = SmallCluster.with_chat()
    cluster.pods["10.9.0.1"] = Pod({"app": "chat"})
    cluster.kubernetes()
    cluster.models["chat"].wanted, cluster.models["chat"].service = True, "chat"
    assert (cluster.step().reason, cluster.step().writes) == ("NotFrontable", ())


def test_a_name_that_is_somebody_elses_is_not_overwritten():
    cluster = SmallCluster.with_chat()
    cluster.put(SHADOW, {"spec": {"selector": {"app": "other"}, "ports": []}})
    cluster.models["chat"].wanted, cluster.models["chat"].service = True, "chat"
    step = cluster.step()
    assert (step.reason, step.writes) == ("NameTaken", ())


def test_without_a_ready_gateway_nothing_begins():
    cluster = SmallCluster.with_chat()
    cluster.gateways = {"10.9.0.1": False}
    cluster.settle()
    assert SHADOW not in cluster.objects
    assert cluster.step().reason == "GatewayNotReady"


def test_when_the_last_gateway_goes_the_pods_are_behind_the_service_at_once_and_the_gateway_again_when_it_is_steady():
    cluster = taken_over()
    cluster.gateways["10.9.0.1"] = False
    cluster.kubernetes()
    (write, *_) = cluster.step().writes
    assert (write.verb, write.ref, write.content) == (Verb.PATCH, SERVICE, {"spec": {"selector": {FRONTED_KEY: None}}})
    cluster.settle()
    assert not cluster.is_narrowed
    assert cluster.answers()
    assert cluster.step().reason == "GatewayNotReady"
    cluster.gateways["10.9.0.1"] = True
    cluster.kubernetes()
    cluster.envoys()
    for _ in cluster.do(cluster.step()):  # our slices say it is ready
        pass
    assert not cluster.is_narrowed
    assert cluster.step().wait
    cluster.settle()
    assert cluster.is_narrowed
    # That the selector was wide meanwhile was nobody's reset.
    assert "beamlit.com/resets" not in cluster.objects[SHADOW]["metadata"]["annotations"]


def test_a_gateway_that_comes_and_goes_is_awaited_longer_each_time_and_no_longer_than_half_a_minute():
    cluster, waited = taken_over(), []
    for _ in range(7):
        cluster.gateways["10.9.0.1"] = False
        cluster.settle()
        assert not cluster.is_narrowed
        cluster.gateways["10.9.0.1"] = True
        since = cluster.now
        cluster.settle()
        assert cluster.is_narrowed
        waited.append(round((cluster.now - since).total_seconds()))
    assert waited == sorted(waited)
    assert waited[0] < 10
    assert 30 < waited[-1] == waited[-2] < 45
    cluster.now += timedelta(minutes=11)
    cluster.gateways["10.9.0.1"] = False
    cluster.settle()
    cluster.gateways["10.9.0.1"] = True
    since = cluster.now
    cluster.settle()
    assert (cluster.now - since).total_seconds() < 10


def test_the_owners_newest_selector_and_ports_are_followed():
    cluster = taken_over()
    cluster.pods = {"10.0.0.8": Pod({"app": "chat", "version": "2"})}
    cluster.edit(SERVICE, {"spec": {"selector": {"version": "2"}}})
    ports = [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 9090}]
    cluster.edit(SERVICE, {"spec": {"ports": ports}})
    cluster.settle()
    assert cluster.objects[SHADOW]["spec"]["selector"] == {"app": "chat", "version": "2"}
    assert cluster.objects[SHADOW]["spec"]["ports"] == ports
    cluster.put(
        SERVICE, {"spec": {**cluster.objects[SERVICE]["spec"], "selector": {"version": "2", FRONTED_KEY: "true"}}}
    )
    cluster.settle()
    assert cluster.objects[SHADOW]["spec"]["selector"] == {"version": "2"}
    cluster.models["chat"].asks = False
    cluster.settle()
    assert cluster.selector == {"version": "2"}
    assert is_fully_restored(cluster)


def test_a_selector_that_was_set_back_is_narrowed_again_until_that_happened_too_often():
    cluster = taken_over()
    for number in range(TOLERATED):
        assert cluster.is_narrowed, number
        cluster.edit(SERVICE, {"spec": {"selector": {FRONTED_KEY: None}}})
        cluster.settle()
    assert is_fully_restored(cluster)
    assert cluster.models["chat"].contested
    # Whoever edits the model asks again.
    cluster.models["chat"].asks = False
    cluster.settle()
    cluster.models["chat"].asks = True
    cluster.settle()
    assert cluster.is_narrowed


def test_a_contest_that_is_forgotten_ends_as_it_did_and_clients_are_answered_all_the_time():
    cluster = SmallCluster.with_chat()
    for _ in range(3):
        # As when a status is lost.
        cluster.models["chat"].contested = False
        cluster.settle()
        for number in range(TOLERATED):
            assert cluster.is_narrowed, number
            cluster.edit(SERVICE, {"spec": {"selector": {FRONTED_KEY: None}}})
            assert cluster.answers()
            cluster.settle()
        assert cluster.models["chat"].contested
        assert is_fully_restored(cluster)


def test_resets_of_long_ago_do_not_count():
    cluster = taken_over()
    for _ in range(2 * TOLERATED):
        cluster.edit(SERVICE, {"spec": {"selector": {FRONTED_KEY: None}}})
        cluster.settle()
        assert cluster.is_narrowed
        cluster.now += timedelta(minutes=20)


def test_other_ports_lead_to_the_pods_and_a_second_model_gets_its_own():
    ports = [
        {"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080},
        {"name": "admin", "protocol": "TCP", "port": 81, "targetPort": 8081},
    ]
    cluster = taken_over(ports=ports)
    assert owned(cluster) == {"http": ["10.9.0.1:10000"], "admin": ["10.0.0.1:8081", "10.0.0.2:8081"]}
    cluster.models["admin"] = Model("admin", 10001, "admin")
    cluster.put(cluster.models["admin"].ref, {})
    cluster.settle()
    assert owned(cluster) == {"http": ["10.9.0.1:10000"], "admin": ["10.9.0.1:10001"]}
    assert cluster.objects[SHADOW]["metadata"]["annotations"][GATEWAY_PORTS] == "10000,10001"
    cluster.models["http"] = cluster.models.pop("chat")
    cluster.models["http"].asks = False
    cluster.settle()
    assert owned(cluster) == {"http": ["10.0.0.1:8080", "10.0.0.2:8080"], "admin": ["10.9.0.1:10001"]}
    assert cluster.objects[SHADOW]["metadata"]["annotations"][GATEWAY_PORTS] == "10001"


def test_a_policy_of_local_traffic_needs_a_gateway_on_every_node_with_pods():
    cluster = SmallCluster.with_chat(internalTrafficPolicy="Local")
    cluster.pods["10.0.0.2"].node = "node-2"
    cluster.kubernetes()
    cluster.models["chat"].wanted, cluster.models["chat"].service = True, "chat"
    step = cluster.step()
    assert step.reason == "GatewayNotReady"
    assert "internalTrafficPolicy: Local" in step.message
    assert "node-2" in step.message
    assert "node-1" not in step.message
    cluster.pods["10.0.0.2"].node = "node-1"
    cluster.settle()
    assert cluster.is_narrowed
    cluster.pods["10.0.0.2"].node = "node-3"
    cluster.settle()
    assert not cluster.is_narrowed


def test_external_traffic_is_kept_local_by_services_that_have_any():
    cluster = SmallCluster.with_chat(externalTrafficPolicy="Local", type="LoadBalancer")
    cluster.pods["10.0.0.2"].node = "node-2"
    cluster.kubernetes()
    cluster.models["chat"].wanted, cluster.models["chat"].service = True, "chat"
    assert "externalTrafficPolicy: Local" in cluster.step().message
    cluster.edit(SERVICE, {"spec": {"type": "ClusterIP"}})
    assert cluster.step().reason == "Pending"


def test_a_gateway_without_an_address_of_a_family_of_the_service_is_not_enough():
    cluster = SmallCluster.with_chat(ipFamilies=["IPv4", "IPv6"])
    cluster.models["chat"].wanted, cluster.models["chat"].service = True, "chat"
    step = cluster.step()
    assert (step.reason, step.writes) == ("GatewayNotReady", ())
    assert "IPv6" in step.message


def test_a_service_that_is_deleted_leaves_nothing_behind():
    cluster = taken_over()
    del cluster.objects[SERVICE]
    cluster.kubernetes()
    for _ in range(20):
        cluster.kubernetes()
        cluster.leader()
        for model in cluster.models.values():
            model.service = None
        for _ in cluster.do(cluster.step()):
            pass
        cluster.now += timedelta(seconds=1)
    assert [ref for ref in cluster.objects if ref.namespace == "default" and ref.kind != "ModelDeployment"] == []


def test_a_selector_is_not_narrowed_again_before_the_shadow_has_every_pod():
    cluster = taken_over()
    cluster.pods = {"10.0.0.8": Pod({"version": "2"})}
    cluster.edit(SERVICE, {"spec": {"selector": {"app": None, "version": "2", FRONTED_KEY: None}}})
    cluster.kubernetes()
    # Kubernetes has followed the Service, and not yet the shadow.
    for _ in range(10):
        for _ in cluster.do(cluster.step()):
            pass
        cluster.now += timedelta(seconds=1)
    assert not cluster.is_narrowed
    assert "does not have all pods yet" in cluster.step().message
    cluster.settle()
    assert cluster.is_narrowed


def test_a_shadow_deleted_by_hand_comes_back():
    cluster = taken_over()
    del cluster.objects[SHADOW]
    cluster.settle()
    assert cluster.is_narrowed
    assert cluster.objects[SHADOW]["metadata"]["annotations"][NARROWED]


def test_a_selector_with_our_key_and_nothing_else_of_ours_is_given_back_and_is_no_field_of_ours():
    """As when the owner applies what he exported while the Service was taken over."""
    cluster = SmallCluster.with_chat()
    cluster.models["chat"].asks = False
    cluster.edit(SERVICE, {"spec": {"selector": {FRONTED_KEY: "true"}}})
    cluster.settle()
    assert cluster.selector == {"app": "chat"}
    assert not cluster.selector_is_ours


def test_a_service_whose_shadow_was_deleted_by_hand_is_given_back_with_its_fields():
    cluster = taken_over()
    cluster.models["chat"].asks = cluster.models["chat"].wanted = False
    for _ in cluster.do(cluster.step(), kills_after=1):  # it is widened
        pass
    del cluster.objects[SHADOW]
    assert cluster.selector_is_ours
    cluster.settle()
    assert is_fully_restored(cluster)
    assert not cluster.selector_is_ours


def test_killed_before_it_gave_up_its_fields_it_does_so_though_no_gateway_is_left():
    cluster = SmallCluster.with_chat()
    while not cluster.is_narrowed:
        cluster.kubernetes()
        cluster.leader()
        cluster.envoys()
        for _ in cluster.do(cluster.step()):
            pass
        cluster.now += timedelta(seconds=1)
    assert cluster.selector_is_ours
    cluster.gateways["10.9.0.1"] = False
    cluster.settle()
    assert not cluster.is_narrowed
    assert not cluster.selector_is_ours


@pytest.mark.parametrize("words", ["9" * 5000, "\u0663,-1,x," + "1" * 6, "8," * 100_000])
def test_what_owners_write_on_a_shadow_is_no_reason_to_fail(words):
    cluster = taken_over()
    cluster.edit(SHADOW, {"metadata": {"annotations": {GATEWAY_PORTS: words, "beamlit.com/resets": words}}})
    cluster.settle()
    assert cluster.objects[SHADOW]["metadata"]["annotations"][GATEWAY_PORTS] == "10000"
    assert cluster.is_narrowed
    cluster.models["chat"].asks = False
    cluster.settle()
    assert is_fully_restored(cluster)


def test_a_controller_of_another_class_leaves_it_alone():
    cluster = taken_over()
    cluster.edit(SHADOW, {"metadata": {"labels": {"beamlit.com/controller-class": "other"}}})
    step = cluster.step()
    assert (step.reason, step.writes) == ("OtherController", ())
    assert cluster.facts().is_of_another_class


def test_what_another_controller_wants_is_its_own_matter():
    cluster = taken_over()
    cluster.models["chat"].wanted = True
    facts = cluster.facts()
    (route,) = facts.routes
    of_another = replace(facts, controller="ours/lease", routes=(replace(route, written_by="theirs/lease"),))
    step = next_step(replace(of_another, gateway_service=None), Stood(cluster.now))
    assert (step.reason, step.writes) == ("OtherController", ())
    # It is still somebody's: a model that is deleted waits for it.
    assert of_another.is_in_use
    assert not of_another.is_of_another_class
    # Who has no name of its own, as without an election, cannot tell; and what nobody wants is anybody's to give back.
    assert next_step(replace(of_another, controller=""), Stood(cluster.now)).is_taken_over
    unwanted = replace(of_another, routes=(replace(route, wanted=False, written_by="theirs/lease"),))
    assert next_step(unwanted, Stood(cluster.now)).writes


def test_names_of_shadows_fit_and_do_not_meet():
    long = "a" * 63
    assert shadow_name("chat") == "chat-beamlit"
    assert len(shadow_name(long)) <= 63
    assert shadow_name(long) != shadow_name("a" * 62)


ACTIONS = (
    "reconcile",
    "reconcile",
    "reconcile",
    "killed",
    "stale",
    "look",
    "kubernetes",
    "kubernetes",
    "leader",
    "leader",
    "envoys",
    "envoys",
    "second passes",
    "second passes",
    "reset",
    "selector",
    "port",
    "pod down",
    "pod up",
    "gateway down",
    "gateway up",
    "asks",
    "asks not",
    "delete",
    "create",
)


@settings(max_examples=100, deadline=None)
@example(["reset", "reconcile", "kubernetes", "gateway down", "reconcile"], True)
@example(["gateway down", "kubernetes", "reconcile", "reconcile", "gateway up", "reconcile"], True)
@given(st.lists(st.sampled_from(ACTIONS), max_size=60), st.booleans())
def test_whatever_happens_it_ends_taken_over_or_given_back_and_no_write_takes_the_last_endpoint(actions, starts_taken):
    cluster = SmallCluster.with_chat()
    if starts_taken:
        cluster.settle()
    looked = cluster.facts()
    disturbed = False
    # That a gateway is gone, or back, nobody can know before Kubernetes does.
    unknown = False
    for action in actions:
        match action:
            case "reconcile":
                _do_checked(cluster, cluster.step(), checked=not unknown)
            case "killed":
                _do_checked(cluster, cluster.step(), kills_after=1, checked=not unknown)
            case "look":
                looked, disturbed = cluster.facts(), False
            case "stale":
                # A process of its own: what it remembers is long ago.
                step = SmallCluster(now=cluster.now).step(looked)
                _do_checked(cluster, step, checked=not disturbed)
            case _:
                disturbed = disturbed or action in ("pod down", "gateway down", "selector", "port", "leader")
                unknown = action in ("gateway down", "gateway up") or (unknown and action != "kubernetes")
                _happens(cluster, action)
    cluster.gateways["10.9.0.1"] = True
    for pod in cluster.pods.values():
        pod.ready = True
    cluster.settle()
    assert cluster.answers()
    wanted = any(one.wanted for one in cluster.models.values())
    assert cluster.step().is_taken_over == wanted
    assert cluster.is_narrowed == wanted
    if not wanted:
        assert is_fully_restored(cluster)
        assert cluster.stored(GATEWAY) is None


def _do_checked(cluster: SmallCluster, step, kills_after=None, *, checked=True) -> None:
    """Do a step: no write takes the last endpoint that answers, neither at once nor when Kubernetes has followed."""
    settled = copy.deepcopy(cluster)
    settled.kubernetes()
    before = cluster.answers() and settled.answers()
    for write in cluster.do(step, kills_after):
        settled = copy.deepcopy(cluster)
        settled.kubernetes()
        if checked and before:
            assert cluster.answers(), write
            assert settled.answers(), write


def _happens(cluster: SmallCluster, action: str) -> None:
    first, chat = next(iter(cluster.pods)), cluster.models["chat"]
    happen = {
        "kubernetes": cluster.kubernetes,
        "leader": cluster.leader,
        "envoys": cluster.envoys,
        "second passes": lambda: setattr(cluster, "now", cluster.now + timedelta(seconds=1)),
        "reset": lambda: cluster.edit(SERVICE, {"spec": {"selector": {FRONTED_KEY: None}}}),
        "selector": lambda: _select_others(cluster),
        "port": lambda: _move_port(cluster),
        "pod down": lambda: setattr(cluster.pods[first], "ready", False),
        "pod up": lambda: setattr(cluster.pods[first], "ready", True),
        "gateway down": lambda: cluster.gateways.update({"10.9.0.1": False}),
        "gateway up": lambda: cluster.gateways.update({"10.9.0.1": True}),
        "asks": lambda: setattr(chat, "asks", True),
        "asks not": lambda: setattr(chat, "asks", False),
        "delete": lambda: cluster.delete_model("chat"),
        "create": lambda: _create_again(cluster),
    }
    happen[action]()


def _select_others(cluster: SmallCluster) -> None:
    """Roll out pods with another label, and let the owner's tool set the selector to it."""
    service = cluster.objects[SERVICE]
    labels = {"app": "chat", "version": str(len(service["spec"]["selector"]))}
    for pod in cluster.pods.values():
        pod.labels = labels
    cluster.put(SERVICE, {**service, "spec": {**service["spec"], "selector": labels}})


def _move_port(cluster: SmallCluster) -> None:
    port = cluster.objects[SERVICE]["spec"]["ports"][0]
    cluster.edit(SERVICE, {"spec": {"ports": [{**port, "targetPort": port["targetPort"] + 1}]}})


def _create_again(cluster: SmallCluster) -> None:
    if ObjectRef("ModelDeployment", "default", "chat") not in cluster.objects:
        cluster.models["chat"] = Model("chat", 10000)
        cluster.put(cluster.models["chat"].ref, {})
