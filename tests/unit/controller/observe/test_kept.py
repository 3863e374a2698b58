"""What is kept of an object while numbers alone are new: the same as if nothing were."""

import gc
import weakref
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from controller.api.kubernetes.endpoints import admit_pods
from controller.decision import Unknown
from controller.frontend.ports import ServicePorts
from controller.observe.fronting import TakeoverRules
from controller.observe.index import ObjectIndex
from controller.observe.kept import NotedLookups
from controller.observe.observation import Defaults, Measured, Observer
from controller.observe.own_place import GatewayPlace
from controller.plan.plan import plan
from controller.signals.load_reports import NoLoads
from controller.signals.source import Sampler
from controller.store.protocol import Batch
from tests.support.kube.site import CONTROLLER_OF_SLICES
from tests.support.objects import a_deployment, a_grant, a_model, a_service, a_slice
from tests.support.proxies import AllProgrammed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
PROXIES = AllProgrammed()
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}}}

MODEL = a_model("a").with_remote("r.example:80").measuring(CPU)
ELSEWHERE = MODEL.fronting("s", namespace="b")
OTHER = a_model("c").with_remote("r.example:80").created("2026-01-01T00:00:01Z")
SERVICE = a_service("a").port(80, name="http", target=8080)
SLICE = a_slice("a").port(8080, "http").written_by(CONTROLLER_OF_SLICES)
OWNED = SERVICE.owned_by(OTHER.stored())
NEXT_DOOR = a_service("s").port(80).in_namespace("b")
GATEWAY = a_service("gateway").in_namespace("gw").port(80)
LABELLED = a_deployment("a").saying({"run": "a"}, "spec", "selector", "matchLabels")

# Each object by the forms that it takes; None is that it is not there. No two models want the same port: who was there
# first is a matter of history, and of no kept value.
FORMS = (
    (MODEL, ELSEWHERE, MODEL.fronting("a", 81), MODEL.with_remote("1.2.3.4"), MODEL.with_remote("gateway.gw"), None),
    (
        None,
        OTHER,
        OTHER.fronting("nothing"),
        OTHER.at_gateway("a"),
        OTHER.with_remote("a.default"),
    ),
    (SERVICE, SERVICE.port(81, name="more"), SERVICE.selecting(run="x"), OWNED, OWNED.selecting(run="x"), None),
    (
        SLICE.ready("10.0.0.1"),
        SLICE.ready("10.0.0.1", "10.0.0.2"),
        SLICE.not_ready("10.0.0.1"),
        SLICE.written_by("somebody").ready("10.0.0.1"),
        SLICE.saying("c", "metadata", "labels", "kubernetes.io/service-name").ready("10.0.0.1"),
        None,
    ),
    (a_slice("a", "2").port(8080, "http").written_by(CONTROLLER_OF_SLICES).ready("10.0.0.9"), None),
    (
        LABELLED,
        LABELLED.probed("/healthz", 8080),
        LABELLED.saying({"run": "b"}, "spec", "selector", "matchLabels"),
        None,
    ),
    (NEXT_DOOR, NEXT_DOOR.annotated(**{"allow-from.beamlit.com/default": "true"}), NEXT_DOOR.port(81, name="x"), None),
    (a_slice("s").written_by(CONTROLLER_OF_SLICES).in_namespace("b").ready("10.0.0.5"), None),
    (None, a_grant().of("default").to("Service", "s"), a_grant().of("default").to("Service", "other")),
    (None, GATEWAY, GATEWAY.saying(["1.2.3.4"], "spec", "externalIPs")),
)


class Echo:
    """Says of what it is asked to measure."""

    def sample(self, subject, metric, now):
        return Unknown(str(subject))


def observer_of(index: ObjectIndex) -> Observer:
    rules = TakeoverRules(controller="ns/lease")
    defaults = Defaults(
        None,
        ServicePorts(),
        admit_pods,
        GatewayPlace(service=("gw", "gateway")),
        expects_workloads=True,
        needs_consent=True,
        takeover=rules,
    )
    measured = Measured(Sampler({"Resource": Echo()}), NoLoads(), timedelta(seconds=2))
    return Observer(index, PROXIES, measured, defaults)


class World:
    """Objects that change, and who observes all of it from the beginning."""

    def __init__(self) -> None:
        self.index = ObjectIndex()
        self.observer = observer_of(self.index)
        self._version = 0

    def put(self, *objects, gone=()) -> None:
        stored = []
        for one in objects:
            self._version += 1
            stored.append(one.stored(version=str(self._version), generation=self._version))
        for ref in sorted(self.index.take(Batch(changed=tuple(stored), deleted=tuple(gone))).models):
            self.observer.register(ref)

    def have(self, at, form) -> None:
        """Have an object in one of its forms."""
        if form:
            self.put(form)
        else:
            self.put(gone=[next(one.ref for one in FORMS[at] if one)])

    def observed(self, ref, observer=None):
        found, _ = (observer or self.observer).observe(ref, NOW)
        return found

    def observed_from_nothing(self, ref):
        observer = observer_of(self.index)
        for one in sorted(self.index.models(), key=lambda one: self.index.intent(one).seniority):
            observer.register(one)
        return self.observed(ref, observer)


steps = st.integers(0, len(FORMS) - 1).flatmap(lambda at: st.tuples(st.just(at), st.integers(0, len(FORMS[at]) - 1)))


@settings(max_examples=40, deadline=None)
@given(st.tuples(*(st.integers(0, len(forms) - 1) for forms in FORMS)), st.lists(steps, max_size=10))
@example((1, 0, 0, 0, 0, 0, 0, 0, 0, 0), [(8, 1), (8, 2)])
@example((0, 0, 4, 0, 0, 0, 0, 0, 0, 0), [(1, 3), (1, 1)])
@example((3, 0, 0, 0, 0, 0, 0, 0, 0, 0), [(9, 2), (9, 1)])
@example((0, 3, 4, 0, 0, 0, 0, 0, 0, 0), [(1, 0)])
def test_what_is_kept_gives_the_plan_that_there_is_from_nothing(beginning, history):
    """The examples: consent alone changes, whose Service it is alone, where the gateway is alone, and whether who owns
    a Service asks for it.
    """
    world = World()
    for at, number in [*enumerate(beginning), *history]:
        world.have(at, FORMS[at][number])
        for ref in sorted(world.index.models()):
            observed, anew = world.observed(ref), world.observed_from_nothing(ref)
            assert observed == anew
            assert plan(observed, NOW).status == plan(anew, NOW).status


@pytest.mark.parametrize("number", [0, 3])
def test_nothing_is_followed_again_until_an_object_is_another(number):
    world = World()
    world.put(*(forms[0] for forms in FORMS if forms[0]))
    before, same = world.observed(MODEL.ref), world.observed(MODEL.ref)
    assert before.front
    assert before.remotes[0] is same.remotes[0]
    world.put(FORMS[number][-2])
    other = world.observed(MODEL.ref)
    assert other.remotes[:1] != before.remotes[:1] or other.front != before.front


def test_consent_without_any_grant_is_not_looked_at_again_either():
    world = World()
    permitted, replicas = FORMS[6][1], FORMS[7][0]
    world.put(ELSEWHERE, permitted, replicas)
    before = world.observed(ELSEWHERE.ref)
    assert before.front
    assert world.observed(ELSEWHERE.ref).remotes[0] is before.remotes[0]


def test_what_was_kept_is_freed_without_a_search_for_garbage():
    world = World()
    world.put(SERVICE, SLICE.ready("10.0.0.1"))
    gc.disable()
    try:
        lookups = NotedLookups(world.index)
        assert lookups.slices("default", "a")
        noted = weakref.ref(lookups)
        del lookups
        assert noted() is None
    finally:
        gc.enable()


def test_of_an_object_that_is_gone_nothing_is_kept():
    world = World()
    world.put(*(forms[0] for forms in FORMS if forms[0]))
    before = world.observed(MODEL.ref)
    world.put(gone=[MODEL.ref])
    assert world.observer.observe(MODEL.ref, NOW) is None
    world.put(MODEL)
    assert world.observed(MODEL.ref).remotes[0] is not before.remotes[0]
