"""Of which objects metrics are asked for: a question has its price, so only where the answer has a say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from controller.api.resources.metrics import MetricSpec
from controller.decision import Unknown
from controller.decision.facts import Sample
from controller.frontend.ports import ServicePorts
from controller.observe.index import ObjectIndex
from controller.observe.observation import Defaults, Measured, Observer
from controller.signals.load_reports import NoLoads
from controller.signals.source import Sampler, Subject
from controller.store.objects import ObjectRef
from controller.store.protocol import Batch
from tests.support.objects import a_model, a_service, a_slice
from tests.support.proxies import AllProgrammed

NOW = datetime(2026, 1, 1, tzinfo=UTC)
CPU = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "AverageValue", "averageValue": "1"}}}
MODEL = a_model("a").with_remote("r.example:80").measuring(CPU)


class Asked:
    """A source that remembers whom it was asked for."""

    def __init__(self) -> None:
        self.refs: list[ObjectRef] = []

    def sample(self, subject: Subject, metric: MetricSpec, now: datetime) -> Sample:
        self.refs.append(subject.ref)
        return Unknown("it is asked")


@pytest.mark.parametrize(
    ("model", "is_asked"),
    [
        (MODEL, True),
        (MODEL.paused(), True),
        (MODEL.disabled(), False),
        (MODEL.fronting("nothing"), False),
        (MODEL.fronting(None), False),
        # An older one has this port of the Service.
        (MODEL.named("b").fronting("a").created("2026-01-01T00:00:01Z"), False),
    ],
    ids=["served", "paused", "not enabled", "no such Service", "no Service", "the port is another's"],
)
def test_metrics_are_asked_for_where_they_may_move_requests(model, is_asked):
    index, source = ObjectIndex(), Asked()
    measured = Measured(Sampler({"Resource": source}), NoLoads(), timedelta(seconds=2))
    observer = Observer(index, AllProgrammed(), measured, Defaults(None, ServicePorts()))
    objects = (MODEL, model, a_service("a").port(80), a_slice("a").ready("10.0.0.1"))
    for number, one in enumerate(objects[model.ref == MODEL.ref :]):
        for ref in index.take(Batch(changed=(one.stored(version=str(number)),))).models:
            observer.register(ref)
    observed = observer.observe(model.ref, NOW)
    assert observed
    assert (bool(source.refs), bool(observed[0].samples)) == (is_asked, is_asked)
