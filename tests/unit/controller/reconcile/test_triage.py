"""Who goes first of many objects that are to be planned at once."""

from datetime import timedelta

from controller.frontend.ports import ServicePorts
from controller.observe.index import ObjectIndex
from controller.observe.observation import Defaults, Measured, Observer
from controller.reconcile.triage import Triage
from controller.signals.load_reports import NoLoads
from controller.signals.source import Sampler
from controller.store.objects import ObjectRef
from controller.store.protocol import Batch
from tests.support.objects import a_model, a_service, a_slice
from tests.support.observations import NOW, planned
from tests.support.proxies import AllProgrammed

REFS = [ObjectRef("ModelDeployment", "default", f"m-{number:02}") for number in range(21)]
QUEUE = {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "4"}}}


class Broken:
    """Fails, and never should."""

    def sample(self, subject, metric, now):
        raise RuntimeError("a mistake of ours")


def triage_of(*models, source=None) -> Triage:
    index = ObjectIndex()
    index.apply(Batch(changed=models, complete=True))
    measured = Measured(Sampler({"External": source} if source else {}), NoLoads(), timedelta(seconds=2))
    return Triage(index, Observer(index, AllProgrammed(), measured, Defaults(None, ServicePorts())))


def test_many_are_asked_about_in_their_order_each_once_and_few_are_not():
    triage = triage_of()
    triage.add(REFS[:20])
    assert triage.take() is None
    triage.add(REFS)
    triage.add(REFS)
    assert [triage.take() for _ in REFS] == REFS
    assert triage.take() is None


def test_by_a_mistake_of_ours_an_object_goes_first_and_one_that_is_gone_does_not(caplog):
    model = a_model().with_remote("r").offloading(percentage=50).measuring(QUEUE)
    status = planned(model, a_service().port(80), a_slice().ready("10.0.0.1")).as_object()
    assert not triage_of().goes_first(model.ref, NOW)
    assert not triage_of(model.stored(status=status)).goes_first(model.ref, NOW)
    assert triage_of(model.stored(status=status), source=Broken()).goes_first(model.ref, NOW)
    assert "metrics of a model not compared" in caplog.text
