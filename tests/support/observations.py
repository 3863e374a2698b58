"""What is known of one model, said in a few words."""

from datetime import UTC, datetime

from controller.api.contract.status import ModelDeploymentStatus
from controller.decision import Known, SentRequests, Unknown
from controller.intent.consent import View
from controller.observe.index import read_intent
from controller.observe.observation import Observation
from controller.observe.proxies import ProxyReports
from controller.observe.references import resolve
from controller.plan.plan import plan
from controller.signals.load_reports import NO_LOAD, Load, NoLoads
from controller.signals.requests_in_flight import RequestsInFlight
from controller.signals.source import Sampler, Subject
from controller.store.objects import ObjectRef
from tests.support.indexed import view_of
from tests.support.objects import AModel, KubeObject
from tests.support.proxies import AllProgrammed

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class OneLoad(NoLoads):
    """The same load of every model."""

    def __init__(self, load: Known[Load] | Unknown) -> None:
        self._load = load

    def load(self, model: ObjectRef, now: datetime) -> Known[Load] | Unknown:
        return self._load


def observed(
    model: AModel,
    *objects: KubeObject | View,
    status: ModelDeploymentStatus | None = None,
    generation: int = 1,
    proxies: ProxyReports | None = None,
    load: Known[Load] | Unknown = NO_LOAD,
    traffic: SentRequests | Unknown = NO_LOAD,
) -> Observation:
    """Observe a model among these objects, or in this one view of them, that has what its references lead to."""
    known = read_intent(model.stored(status=status and status.as_object(), generation=generation))
    assert known.intent, known.errors
    view = objects[0] if objects and isinstance(objects[0], View) else view_of(*objects)
    resolved = resolve(known.intent, view, None)
    sampler = Sampler({"Requests": RequestsInFlight(OneLoad(load))})
    return Observation(
        stored=known.stored,
        before=known.status,
        intent=known.intent,
        front=resolved.front,
        remotes=resolved.remotes,
        faults=resolved.faults,
        proxies=(proxies or AllProgrammed()).facts(known.ref),
        samples=sampler.samples(Subject(known.ref), known.intent.metrics, NOW),
        traffic=traffic,
        memory=known.memory,
    )


def planned(model: AModel, *objects: KubeObject | View, at: datetime = NOW, **known) -> ModelDeploymentStatus:
    """Plan the status of a model among these objects."""
    return plan(observed(model, *objects, **known), at).status
