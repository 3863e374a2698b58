"""The controller at work over a store: models whose remote backend is another model of the same gateway."""

from controller.observe.fronting import TakeoverRules
from controller.observe.own_place import GatewayPlace
from controller.store.objects import ObjectRef
from tests.support.controlled import IN_A_CLUSTER, condition, controlled, stored
from tests.support.objects import a_model, a_service, a_slice
from tests.support.store import MemoryStore, settled

GATEWAY = ObjectRef("Service", "beamlit-system", "gateway")
CLUSTER = {
    "ports": IN_A_CLUSTER,
    "gateway_place": GatewayPlace(service=(GATEWAY.namespace, GATEWAY.name)),
    "takeover": TakeoverRules(gateway=GATEWAY),
}


def service(name):
    return a_service(name).port(80).selecting(app=name)


def remote(store, name):
    return store[a_model(name).ref].status["route"].get("remote")


def sending(name, host, **spec):
    """A model that gives away what its Service has no place for."""
    model = a_model(name).with_remote(host)
    for field, value in spec.items():
        model = model._with(value, "spec", field)
    return model


def world(*models):
    gateway = a_slice("gateway").in_namespace(GATEWAY.namespace).port(10000).ready("10.9.0.1")
    return stored(*models, service("large"), service("small"), gateway)


async def test_a_large_model_falls_back_on_a_small_one_and_that_on_a_platform():
    store = MemoryStore(world(sending("large", "small.default"), sending("small", "platform.example")))
    async with controlled(store, **CLUSTER):
        assert condition(store, "ResolvedRefs", "large")[:2] == ("True", "Resolved")
        assert remote(store, "large")["throughGateway"] is True
        assert "throughGateway" not in remote(store, "small")


async def test_of_two_that_are_each_others_the_younger_does_without_and_says_why():
    younger = sending("small", "large.default.svc").created("2026-02-01T00:00:00Z")
    store = MemoryStore(world(sending("large", "small.default"), younger))
    async with controlled(store, **CLUSTER):
        assert remote(store, "large")["throughGateway"] is True
        assert remote(store, "small") is None
        assert condition(store, "ResolvedRefs", "small") == (
            "False",
            "LoopDetected",
            "spec.offloadingConfig.remoteBackend.host: large.default.svc, port 80, leads back to this object "
            "(ModelDeployment default/small sends to ModelDeployment default/large, "
            "ModelDeployment default/large sends to ModelDeployment default/small): "
            "this one is the youngest of them, and does without its remote backend",
        )
        # Whoever ends the cycle ends it for both.
        store.put(sending("large", "platform.example").stored(version="9", status=store[a_model("large").ref].status))
        await settled()
        assert condition(store, "ResolvedRefs", "small")[:2] == ("True", "Resolved")
        assert remote(store, "small")["throughGateway"] is True


async def test_two_whose_services_lead_to_their_pods_are_no_cycle():
    apart = {"frontend": "Gateway"}
    store = MemoryStore(world(sending("large", "small.default", **apart), sending("small", "large.default", **apart)))
    async with controlled(store, **CLUSTER):
        assert [condition(store, "ResolvedRefs", name)[1] for name in ("large", "small")] == ["Resolved"] * 2


async def test_a_model_whose_remote_is_its_own_service_is_alone_on_its_cycle():
    store = MemoryStore(world(sending("small", "small.default.svc.cluster.local")))
    async with controlled(store, **CLUSTER):
        assert condition(store, "ResolvedRefs", "small")[:2] == ("False", "LoopDetected")
        assert remote(store, "small") is None
