"""What Prometheus is told of the decisions."""

from prometheus_client import CollectorRegistry, generate_latest

from controller.decision import Reason
from controller.programs.metrics import DecisionMetrics
from tests.support.decisions import a_decision
from tests.support.objects import a_model

A, B = a_model("a").ref, a_model("b").ref


class Observed:
    def __init__(self, *observations):
        self.registry = CollectorRegistry()
        metrics = DecisionMetrics(self.registry)
        for model, made in observations:
            metrics.observe(model, made)

    def split(self, side, model=A):
        labels = {"namespace": model.namespace, "name": model.name, "side": side}
        return self.registry.get_sample_value("beamlit_model_split_ratio", labels)

    def decisions(self, reason, model=A):
        labels = {"namespace": model.namespace, "name": model.name, "reason": reason}
        return self.registry.get_sample_value("beamlit_model_decisions_total", labels)


def test_the_split_of_each_model():
    observed = Observed((A, a_decision(30, Reason.OVERRIDE)), (B, a_decision(0, Reason.STEADY)))
    assert (observed.split("local"), observed.split("remote")) == (0.7, 0.3)
    assert (observed.split("local", B), observed.split("remote", B)) == (1, 0)


def test_changes_are_counted_by_reason_and_repetitions_are_not():
    observed = Observed(
        (A, a_decision(0, Reason.STEADY)),
        (A, a_decision(0, Reason.STEADY, "other words")),
        (A, a_decision(100, Reason.LOCAL_DOWN)),
        (A, a_decision(50, Reason.RECOVERING)),
        (A, a_decision(20, Reason.RECOVERING)),
        (A, a_decision(0, Reason.STEADY)),
    )
    assert (observed.decisions("Steady"), observed.decisions("LocalDown"), observed.decisions("Recovering")) == (
        2,
        1,
        2,
    )


def test_a_model_that_is_gone_has_no_split():
    observed = Observed((A, a_decision(0, Reason.STEADY)), (A, None), (B, None))
    assert observed.split("local") is None
    assert b"beamlit_model_split_ratio{" not in generate_latest(observed.registry)
