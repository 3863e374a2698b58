"""To which ports of the gateway Services lead: what is believed, and for how long."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.api.kubernetes.fronting import CONTROLLER_CLASS, SLICES_OF
from controller.observe.fronting import TakeoverRules
from controller.observe.index import ObjectIndex
from controller.observe.led_ports import LedPorts
from controller.store.objects import ObjectRef, StoredObject
from controller.store.protocol import Batch
from tests.support.objects import a_model, a_service, a_slice
from tests.support.routes import a_route

NOW = datetime(2026, 11, 29, tzinfo=UTC)
RULES = TakeoverRules()
SHORT, LONG = timedelta(seconds=1), timedelta(seconds=3)
CALLED = ObjectRef("Service", "default", "called")


def a_model_at(port: int, service: str = "a", fronted: str | None = None) -> StoredObject:
    """A model that is served at a port of the gateway, before the pods of a Service; it may have taken one over."""
    route = a_route(port=port)
    route = route.model_copy(update={"local": route.local.model_copy(update={"service": service, "fronted": fronted})})
    raw = route.model_dump(mode="json", by_alias=True, exclude_none=True)
    return a_model().stored(status={"observedGeneration": 1, "route": raw})


def a_model_before(port: int) -> StoredObject:
    """A model that is served at a port of the gateway, and has taken over the Service that clients call."""
    return a_model_at(port, f"{CALLED.name}-beamlit", CALLED.name)


def the_service(uid: str | None = None, **selector: str) -> StoredObject:
    """The Service that clients call. With a uid that model owns it; without a selector, too, it was made for it."""
    service = a_service(CALLED.name).port(80).selecting(**selector)
    return (service.owned_by(a_model().stored(), uid) if uid else service).stored()


def slices(*ports: int, by: str = SLICES_OF, class_: str = "") -> tuple[StoredObject, ...]:
    """What leads clients of that Service to these ports."""
    return tuple(
        a_slice(CALLED.name, str(number))
        .written_by(by)
        .saying(class_, "metadata", "labels", CONTROLLER_CLASS)
        .port(port)
        .ready("10.9.0.1")
        .stored()
        for number, port in enumerate(ports)
    )


class World:
    """What there is, and what is believed of it."""

    def __init__(self, *objects: StoredObject, begun: bool = True) -> None:
        self.index = ObjectIndex()
        self.led = LedPorts(self.index, RULES)
        self.now, self._version = NOW, 0
        if begun:
            self.led.begun()
        self.has(*objects)

    def has(self, *objects: StoredObject) -> None:
        """Let this be all that there is."""
        self._version += 1
        changed = tuple(
            StoredObject(one.ref, {**one.raw, "metadata": {**one.metadata, "resourceVersion": str(self._version)}})
            for one in objects
        )
        self.index.take(Batch(changed=changed, complete=True))
        self.index.refers(a_model().ref, (CALLED,))

    def ports(self, later: timedelta = timedelta()) -> set[int]:
        self.now += later
        return set(self.led.see(CALLED, self.now))


UID = str(a_model().stored().uid)


@pytest.mark.parametrize(
    ("service", "model"),
    [
        (the_service(UID), a_model_at(10000)),
        (the_service(), a_model_before(10000)),
        # Whoever it is that it goes with.
        (the_service("another", app="a"), a_model_before(10000)),
    ],
)
def test_a_port_counts_that_a_model_is_served_at_whose_service_leads_there_and_until_it_leads_there_no_more(
    service, model
):
    world = World(service, model, *slices(10000, 10001))
    assert world.ports() == {10000}
    # Without its model, and without the Service.
    world.has(*slices(10000, 10001))
    assert world.ports(LONG) == {10000}
    world.has(*slices(10001))
    assert world.ports() == {10000}
    assert world.ports(SHORT) == {10000}
    assert world.ports(SHORT) == set()


def test_when_a_model_has_moved_both_ports_count_until_the_slices_have_moved():
    world = World(the_service(UID), a_model_at(10000), *slices(10000))
    assert world.ports() == {10000}
    world.has(the_service(UID), a_model_at(10005), *slices(10000))
    assert world.ports(LONG) == {10000}
    world.has(the_service(UID), a_model_at(10005), *slices(10005))
    assert world.ports() == {10000, 10005}
    assert world.ports(LONG) == {10005}


@pytest.mark.parametrize(
    "objects",
    [
        slices(10000),
        (the_service(), *slices(10000)),
        (the_service(), a_model_at(10000), *slices(10000)),
        (the_service(), a_model_at(10000, CALLED.name), *slices(10000)),
        (the_service("another"), a_model_at(10000), *slices(10000)),
        (the_service(UID), a_model_at(10001), *slices(10000)),
        (the_service(UID), a_model_at(10000), *slices(10000, by="another")),
        (the_service(UID), a_model_at(10000), *slices(10000, class_="another")),
    ],
)
def test_what_somebody_writes_like_ours_keeps_no_port(objects):
    assert World(*objects).ports() == set()


def test_at_the_beginning_a_service_that_was_made_for_a_model_is_believed_whatever_became_of_that():
    for uid in (UID, "another"):
        world = World(the_service(uid), a_model_at(10005), *slices(10000), begun=False)
        assert world.ports() == {10000}
        world.led.begun()
        assert world.ports(LONG) == {10000}
    assert World(the_service(), *slices(10000), begun=False).ports() == set()
    # One with pods may be taken over: of its slices some lead to the pods.
    assert World(the_service(UID, app="a"), *slices(10000), begun=False).ports() == set()
    assert World(*slices(10000), begun=False).ports() == set()


def test_it_is_said_when_to_look_again():
    world = World(the_service(UID), a_model_at(10000), *slices(10000))
    world.ports()
    assert world.led.wakes_at(NOW) is None
    world.has()
    world.ports()
    over = NOW + timedelta(seconds=RULES.timing.kube_proxy_within)
    assert world.led.wakes_at(NOW) == over
    assert list(world.led.over(NOW)) == []
    assert list(world.led.over(over)) == [CALLED]
    assert world.led.wakes_at(over) is None


def test_a_clock_that_is_set_back_keeps_no_port_for_longer():
    world = World(the_service(UID), a_model_at(10000), *slices(10000))
    world.ports()
    world.has()
    world.ports()
    yesterday = NOW - timedelta(days=1)
    assert world.led.wakes_at(yesterday) <= yesterday + timedelta(seconds=RULES.timing.kube_proxy_within)
    assert list(world.led.over(yesterday)) == [CALLED]
    assert world.led.see(CALLED, yesterday) == set()
