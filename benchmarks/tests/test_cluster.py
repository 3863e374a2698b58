"""The pure parts of the benchmark on an API server: what a model consists of, and how figures are judged."""

from __future__ import annotations

from benchmarks.cluster.figures import Changes, Figures, Start, Timing, as_object, table, verdicts
from benchmarks.cluster.objects import Servers, objects_of, override
from controller.api.kubernetes.endpoints import replicas_of
from controller.api.resources.model import ModelDeployment
from controller.gateway.bootstrap import HostPort
from tests.support.objects import AModel, ASlice

SERVERS = Servers(tuple(HostPort("192.0.2.1", 8000 + number) for number in range(5)), HostPort("192.0.2.1", 9000))


def figures(models: int, sent: float, cpu: float, writes: float = 1.5) -> Figures:
    timings = tuple(Timing(0.01, 0.02, sent, sent + 0.001, sent + 0.002) for _ in range(3))
    changes = Changes(timings, {"controller": cpu}, {"controller": writes})
    start = Start(1.0, 2.0, 3.0, 4.0, 5.0, {"controller": 1.0})
    return Figures(models, start, {"controller": 1 << 20}, {"controller": 0.01}, changes, changes)


def test_a_model_has_five_replicas_and_a_remote_backend():
    *others, last = objects_of(7, SERVERS)
    model = AModel(last.raw).parsed()
    assert isinstance(model, ModelDeployment)
    assert (model.metadata.name, model.spec.offloading_config.backends[0].host) == ("model-0007", "192.0.2.1:9000")
    slices = [ASlice(one.raw).parsed() for one in others if one.ref.kind == "EndpointSlice"]
    assert [(one.port, one.ready) for one in replicas_of(slices, "")] == [(8000 + number, True) for number in range(5)]


def test_the_change_of_an_annotation_is_an_override_that_is_understood():
    intent = AModel(objects_of(7, SERVERS)[-1].raw).annotated(**override(100)["metadata"]["annotations"]).intent()
    assert (intent.terms.override.remote, intent.faults) == (100, ())


def test_a_change_that_takes_longer_with_many_models_is_missed():
    few, many = figures(10, 0.010, 0.005), figures(1000, 0.0121, 0.005)
    judged = [text for good, text in verdicts([few, many], ["controller"]) if not good]
    assert [text.partition(": ")[2].partition(":")[0] for text in judged] == ["median until sent"] * 2


def test_a_change_that_writes_more_objects_with_many_models_is_missed():
    few, many = figures(10, 0.010, 0.005), figures(1000, 0.010, 0.005, writes=5.3)
    judged = [text for good, text in verdicts([few, many], ["controller"]) if not good]
    assert [text.partition(": ")[2].partition(":")[0] for text in judged] == ["writes of controller"] * 2


def test_the_figures_are_told_in_the_units_of_the_table():
    columns = [figures(10, 0.010, 0.005), figures(1000, 0.020, 0.005)]
    told = as_object(columns)
    assert told["models"] == [10, 1000]
    assert {"name": "change: sent, p50", "unit": "ms", "values": [10.0, 20.0]} in told["figures"]
    assert any(
        line.split() == ["change:", "sent,", "p50", "ms", "10.00", "20.00", "2.00"]
        for line in table(columns).splitlines()
    )
