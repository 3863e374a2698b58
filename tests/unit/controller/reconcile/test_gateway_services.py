"""The controller and its loop over Services at work over a store: Services that models have at the gateway."""

import asyncio
from collections import Counter
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from controller.api.kubernetes.endpoints import ENDPOINT_CONTROLLER
from controller.api.kubernetes.fronting import SLICES_OF
from controller.api.kubernetes.objects import SERVICE_NAME
from controller.observe.fronting import TakeoverRules, facts_of, gateway_service_facts
from controller.observe.index import ObjectIndex
from controller.observe.own_place import GatewayPlace
from controller.observe.proxies import Programmed
from controller.reconcile.services import ServiceLoop, ServiceLoopDependencies
from controller.store.objects import ObjectRef
from controller.store.protocol import UNCONDITIONAL, Batch
from tests.support.clock import Clock
from tests.support.controlled import IN_A_CLUSTER, condition, controlled, stored
from tests.support.indexed import index_of
from tests.support.objects import a_model, a_service, a_slice
from tests.support.proxies import AllProgrammed
from tests.support.store import MemoryStore, settled

GATEWAY = ObjectRef("Service", "beamlit-system", "gateway")
RULES = TakeoverRules(gateway=GATEWAY)
NAMED = ObjectRef("Service", "default", "chat-gw")


def a_chat(name="chat", host="platform.example"):
    """A model that asks for a Service at the gateway."""
    return a_model(name).with_remote(host).at_gateway(f"{name}-gw")


def world(*more):
    gateway = a_slice("gateway").in_namespace(GATEWAY.namespace).of("IPv4").port(10000).ready("10.9.0.1")
    services = (a_service(name).port(80).selecting(app=name) for name in ("chat", "small"))
    return stored(*services, gateway, *more)


@asynccontextmanager
async def looping(store, rules, clock, look_again=lambda _: None):
    """Run the loop over Services of a replica that leads."""
    loop = ServiceLoop(store, rules, ServiceLoopDependencies(clock, lambda: True, look_again))
    task = asyncio.create_task(loop.run())
    try:
        await settled()
        yield loop
        assert not task.done()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@asynccontextmanager
async def working(store, proxies=None, rules=RULES):
    """Run a controller that leads, and its loop over Services."""
    clock = Clock()
    around = {
        "ports": IN_A_CLUSTER,
        "gateway_place": GatewayPlace(service=(GATEWAY.namespace, GATEWAY.name)),
        "controller": rules.controller,
        "takeover": rules,
        "proxies": proxies or AllProgrammed(),
    }
    async with (
        controlled(store, clock, **around) as running,
        looping(store, rules, clock, running.controller.look_again),
    ):
        await some_time(running)
        yield running


async def some_time(running):
    """Let seconds pass, in which each model is looked at again."""
    for _ in range(5):
        running.controller.look_again(frozenset((a_chat().ref, a_chat("small").ref)))
        await running.pass_time(1)


def of_kind(store, kind):
    return [one for ref, one in store._objects.items() if ref.kind == kind]


def ways(store, name=NAMED.name):
    """Where clients of a Service are led: addresses and ports."""
    slices = [one for one in of_kind(store, "EndpointSlice") if one.metadata["labels"][SERVICE_NAME] == name]
    return {
        (address, port["port"])
        for one in slices
        for port in one.raw["ports"]
        for endpoint in one.raw["endpoints"]
        for address in endpoint["addresses"]
    }


async def test_a_model_has_a_service_that_leads_to_the_gateway():
    store = MemoryStore(world(a_chat()))
    async with working(store):
        assert ways(store) == {("10.9.0.1", 10000)}
        assert condition(store, "Fronted", "chat")[:2] == ("True", "GatewayService")


class NobodyFollows(AllProgrammed):
    """An Envoy that acknowledges nothing more once it `stands`."""

    stands = False

    def report(self, model, route):
        return Programmed(connected=1, programmed=0 if self.stands else 1)


NEXT_DOOR = a_model("next").in_namespace("door").fronting("next").with_remote().saying("Gateway", "spec", "frontend")
NEXT_DOOR_WAITS = (
    "spec.servingPort: port 10000 becomes free once no Service of namespace default leads its clients there any more"
)


def next_door(store):
    """The port of the model next door, and what its condition Accepted says."""
    status = store[NEXT_DOOR.ref].status
    said = next(one["message"] for one in status["conditions"] if one["type"] == "Accepted")
    return status.get("servingPort"), said


def with_next_door():
    service = a_service("next").in_namespace("door").port(80).selecting(app="next")
    return MemoryStore(world(a_chat().fixing(10000), service, NEXT_DOOR.fixing(10000)))


async def test_a_port_is_given_next_door_once_no_client_is_led_there():
    store, envoys = with_next_door(), NobodyFollows()
    async with working(store, envoys) as running:
        assert ways(store) == {("10.9.0.1", 10000)}
        envoys.stands = True
        store.put(a_chat().fixing(10005).stored(status=store[a_chat().ref].status, generation=2, version="100"))
        await some_time(running)
        assert store[a_chat().ref].status["servingPort"] == 10005
        assert ways(store) == {("10.9.0.1", 10000)}
        assert next_door(store) == (None, NEXT_DOOR_WAITS)
    # Another controller sees the same.
    async with working(store, envoys) as running:
        store.put(
            NEXT_DOOR.fixing(10000).stored(status=store[NEXT_DOOR.ref].status, generation=2, version="200"),
        )
        await some_time(running)
        assert store[NEXT_DOOR.ref].status["observedGeneration"] == 2
        assert next_door(store) == (None, NEXT_DOOR_WAITS)
        envoys.stands = False
        running.controller.look_again(None)
        await running.pass_time(0.1)
        assert ways(store) == {("10.9.0.1", 10005)}
        # Until kube-proxy leads nobody there any more.
        assert next_door(store) == (None, NEXT_DOOR_WAITS)
        await some_time(running)
        assert next_door(store)[0] == 10000


async def test_of_a_model_that_is_gone_a_port_is_given_next_door_once_its_service_leads_nowhere():
    store = with_next_door()
    async with working(store) as running:
        store.remove(a_chat().ref)
        await some_time(running)
        # Nobody collects garbage here.
        assert ways(store) == {("10.9.0.1", 10000)}
        assert next_door(store) == (None, NEXT_DOOR_WAITS)
        for ref in (NAMED, *(one.ref for one in of_kind(store, "EndpointSlice") if one.ref.namespace == "default")):
            store.remove(ref)
        await some_time(running)
        assert next_door(store)[0] == 10000


async def test_a_slice_that_cannot_be_read_ends_nothing_and_frees_no_port():
    store = with_next_door()
    async with working(store) as running:
        odd = a_slice(NAMED.name, "odd").written_by(SLICES_OF).saying(5, "ports")
        store.put(odd.stored())
        store.remove(a_chat().ref)
        await some_time(running)
        assert running.failures
        # The model next door was looked at, too.
        assert next_door(store) == (None, NEXT_DOOR_WAITS)
        store.remove(odd.stored().ref)
        for ref in (NAMED, *(one.ref for one in of_kind(store, "EndpointSlice") if one.ref.namespace == "default")):
            store.remove(ref)
        await some_time(running)
        assert next_door(store)[0] == 10000


class AnotherIsFaster(MemoryStore):
    """A store in which somebody else creates each Service in the moment before, as it is to be or as `theirs`."""

    theirs = None

    async def create(self, raw):
        ref = ObjectRef.of(raw)
        if raw["kind"] == "Service" and ref not in self._objects:
            await super().create(self.theirs or raw)
        return await super().create(raw)


async def test_one_that_another_replica_made_meanwhile_is_no_failure():
    store = AnotherIsFaster(world(a_chat()))
    async with working(store):
        assert condition(store, "Fronted", "chat")[:2] == ("True", "GatewayService")


async def test_one_that_somebody_else_made_meanwhile_is_his():
    store = AnotherIsFaster(world(a_chat()))
    store.theirs = a_service(NAMED.name).in_namespace("default").port(80).selecting(app="theirs").raw
    async with working(store):
        assert condition(store, "Fronted", "chat")[:2] == ("False", "NameTaken")
        assert store[NAMED].raw["spec"] == store.theirs["spec"]


async def test_pods_of_a_service_that_has_the_name_of_its_shadow_are_none_of_it():
    theirs = a_service(f"{NAMED.name}-beamlit").port(80, name="http").selecting(app="theirs")
    pods = a_slice(f"{NAMED.name}-beamlit").of("IPv4").port(8080, name="http").written_by(ENDPOINT_CONTROLLER)
    store = MemoryStore(world(theirs, pods.ready("10.8.0.9"), a_chat().fronting("missing")))
    async with working(store):
        assert NAMED in {one.ref for one in of_kind(store, "Service")}
        assert ways(store) == set()


class Finalizing(MemoryStore):
    """A store in which what has a finalizer stays when it is deleted; `deleted` counts how often each was."""

    def __init__(self, objects):
        super().__init__(objects)
        self.deleted = Counter()

    async def delete(self, ref, precondition=UNCONDITIONAL):
        self.deleted[ref] += 1
        stored = await self._meeting(ref, precondition)
        if stored.metadata.get("finalizers"):
            await self.patch(ref, {"metadata": {"deletionTimestamp": "2026-01-02T00:00:00Z"}})
        else:
            await super().delete(ref, precondition)


def held(one):
    return one.saying(["team.example/held"], "metadata", "finalizers")


async def test_what_a_finalizer_keeps_is_deleted_once_and_however_much_of_it_there_is_in_parts():
    """A load balancer takes its time, and anybody may name a model as the owner of any number of Services."""
    model = a_chat()
    others = [held(a_service(f"other{number:02}").port(80).owned_by(model.stored())) for number in range(25)]
    own = a_service(NAMED.name).port(80, name="http", appProtocol="http").owned_by(model.stored())
    theirs = held(a_slice(NAMED.name, "theirs").of("IPv4").port(8080).written_by(ENDPOINT_CONTROLLER))
    store = Finalizing(world(model, own, theirs, *others))
    async with working(store) as running:
        for _ in range(3):
            await some_time(running)
        assert store.deleted == Counter([theirs.stored().ref, *(one.ref for one in others)])
        # It leads to the gateway meanwhile.
        assert ("10.9.0.1", 10000) in ways(store)
        # Once one of them is gone, and is there again, it is another one.
        again = a_service("other00").port(80).owned_by(model.stored()).saying("another", "metadata", "uid")
        store.put(again.stored())
        await some_time(running)
        assert again.ref not in {one.ref for one in of_kind(store, "Service")}


def test_of_what_a_model_owns_some_are_removed_in_one_step():
    model = a_chat()
    others = [a_service(f"other{number:02}").port(80).owned_by(model.stored()) for number in range(25)]
    theirs = [a_service("a-pods").selecting(app="chat"), a_service("b-of-another").port(80)]
    index = index_of(
        model,
        *others,
        theirs[0].owned_by(model.stored()),
        theirs[1].owned_by(model.stored(), uid="another"),
        held(a_service("c-going").port(80)).owned_by(model.stored()).saying("2026", "metadata", "deletionTimestamp"),
    )
    found = gateway_service_facts(index, index.intent(model.ref), RULES)
    assert [one.ref.name for one in found.others] == [f"other{number:02}" for number in range(10)]
    # It has none of them, and one is no model's any more.
    index.apply(Batch(changed=(others[0]._with(None, "metadata", "ownerReferences").stored(version="2"),)))
    assert others[0].ref not in index.owned_by(model.ref)
    found = gateway_service_facts(index, index.intent(model.ref), RULES)
    assert found.others[0].ref.name == "other01"


class Counting(ObjectIndex):
    """An index that counts how often a model is looked up."""

    looked_up = 0

    def intent(self, ref):
        self.looked_up += 1
        return super().intent(ref)


def test_what_is_known_of_a_service_costs_the_same_however_many_models_ask_for_its_name():
    def costs(many):
        index, models = Counting(), [a_chat(f"m{number}").at_gateway(NAMED.name) for number in range(many)]
        index.apply(Batch(changed=tuple(stored(*models, a_service(NAMED.name).owned_by(models[0].stored())))))
        for model in models:
            index.refers(model.ref, [NAMED])
        known = index.intent(models[-1].ref)
        index.looked_up = 0
        assert gateway_service_facts(index, known, RULES).named.service
        assert facts_of(index, NAMED, RULES).routes == ()
        return index.looked_up

    assert costs(200) == costs(20)


async def test_a_service_with_pods_stays_whoever_it_names_as_its_owner():
    model = a_chat()
    theirs = a_service("theirs").port(80).owned_by(model.stored())
    store = MemoryStore(world(model, theirs.selecting(app="chat"), theirs.named("without-selector")))
    async with working(store):
        left = {one.ref.name for one in of_kind(store, "Service")}
        assert ("theirs" in left, "without-selector" in left) == (True, False)


@pytest.mark.parametrize("frontend", ["Takeover", "Gateway"])
async def test_a_model_cannot_stand_in_front_of_a_service_that_leads_to_the_gateway(frontend):
    """It would have no replicas, for ever, and say that it is ready wherever it has a remote backend."""
    other = a_model("other").fronting(NAMED.name).with_remote()._with(frontend, "spec", "frontend")
    store = MemoryStore(world(a_chat()))
    async with working(store) as running:
        store.put(other.stored())
        await some_time(running)
        assert condition(store, "ResolvedRefs", "other") == (
            "False",
            "LoopDetected",
            "spec.serviceRef: Service default/chat-gw leads to the gateway itself: it was made for a model, by its "
            "spec.gatewayService. Name the Service of the pods",
        )
        assert condition(store, "Ready", "other")[:2] == ("False", "UnresolvedRefs")
        assert condition(store, "Fronted", "other")[:2] == ("False", "NotServed")
        assert store[a_model("other").ref].status.get("route") is None
        # The one that it was made for has it as before, also while somebody gives it a selector.
        assert ways(store) == {("10.9.0.1", 10000)}
        await store.patch(NAMED, {"spec": {"selector": {"app": "chat"}}})
        await some_time(running)
        assert condition(store, "ResolvedRefs", "other")[1] == "LoopDetected"
        assert ways(store) == {("10.9.0.1", 10000)}
        assert {one.ref.name for one in of_kind(store, "Service")} == {"chat", "small", "chat-gw"}


async def test_none_begins_to_lead_to_a_gateway_that_gets_no_configuration():
    proxies = AllProgrammed()
    proxies.connected = 0
    store = MemoryStore(world(a_chat()))
    async with working(store, proxies) as running:
        assert condition(store, "Fronted", "chat")[:2] == ("False", "GatewayNotConnected")
        assert ways(store) == set()
        proxies.connected = 1
        await some_time(running)
        assert condition(store, "Fronted", "chat")[:2] == ("True", "GatewayService")
        # A control plane that restarts takes nothing back.
        proxies.connected = 0
        await some_time(running)
        assert condition(store, "Fronted", "chat")[:2] == ("True", "GatewayService")
        assert ways(store) == {("10.9.0.1", 10000)}


async def test_a_controller_leaves_alone_what_another_one_decides_on():
    ours, theirs = (TakeoverRules(gateway=GATEWAY, controller=name) for name in ("home/ours", "other/theirs"))
    theirs = replace(theirs, gateway=ObjectRef("Service", "other", "gateway"))
    elsewhere = a_slice("gateway").in_namespace("other").of("IPv4").port(10000).ready("10.7.0.1").stored()
    store = MemoryStore(world(a_chat()))
    store.put(elsewhere)
    async with working(store, rules=ours):
        assert ways(store) == {("10.9.0.1", 10000)}
        async with looping(store, theirs, Clock()) as other:
            assert ways(store) == {("10.9.0.1", 10000)}
            assert other.counts.writes == {}


async def test_a_wish_that_nobody_has_decided_on_leads_nowhere():
    """It may be that a gateway is away: who leads says so, of this very spec."""
    store = MemoryStore(world(a_chat()))
    proxies = AllProgrammed()
    async with working(store, proxies):
        before = store[a_chat().ref].status
    proxies.connected = 0
    store = MemoryStore(world())
    store.put(a_chat()._with({"name": "other"}, "spec", "gatewayService").stored(status=dict(before), generation=2))
    async with looping(store, RULES, Clock()):
        assert ways(store, "other") == set()


@pytest.mark.parametrize("younger", ["chat", "small"])
async def test_a_remote_backend_at_such_a_service_is_another_model(younger):
    created = "2026-02-01T00:00:00Z"
    models = {"chat": a_chat(host="small-gw.default"), "small": a_chat("small", "chat-gw.default.svc")}
    models[younger] = models[younger].created(created)
    store = MemoryStore(world(*models.values()))
    async with working(store):
        for name in models:
            found = condition(store, "ResolvedRefs", name)[1]
            assert found == ("LoopDetected" if name == younger else "Resolved")
        (other,) = models.keys() - {younger}
        assert store[a_model(other).ref].status["route"]["remote"]["throughGateway"] is True


@pytest.mark.parametrize("pods", [{}, {"app": "chat"}])
async def test_a_remote_backend_at_a_service_with_pods_is_no_model_whoever_that_names_as_its_owner(pods):
    chat = a_chat()._with(None, "spec", "gatewayService")
    theirs = a_service("theirs").port(80).selecting(**pods).owned_by(chat.stored())
    small = a_model("small").with_remote("theirs.default").created("2026-02-01T00:00:00Z")
    # Without pods it leads to the gateway until it is removed, which takes a loop over Services.
    store = MemoryStore(world(theirs, chat, small))
    place = GatewayPlace(service=(GATEWAY.namespace, GATEWAY.name))
    async with controlled(store, ports=IN_A_CLUSTER, gateway_place=place, takeover=RULES) as running:
        await some_time(running)
        assert store[small.ref].status["route"]["remote"].get("throughGateway", False) is not bool(pods)
