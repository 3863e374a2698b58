"""What Prometheus is told of the models and of the controller's work."""

from datetime import UTC, datetime

from prometheus_client import CollectorRegistry, generate_latest

from controller.api.contract.status import Condition, LocalStatus, ModelDeploymentStatus, SplitStatus
from controller.decision import Reason
from controller.plan.plan import Plan
from controller.programs.metrics import ControllerMetrics
from tests.support.decisions import a_decision
from tests.support.objects import a_model

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B = a_model("a"), a_model("b")


def planned(model, decision=None, *, ready=True, replicas=(1, 2)):
    """What a model shall be; without a decision it fronts nothing."""
    split = decision and SplitStatus(
        local=decision.split.local,
        remote=decision.split.remote,
        reason=decision.reason,
        message=decision.message,
        since=NOW,
    )
    status = ModelDeploymentStatus(
        conditions=(
            Condition(
                type="Ready", status="True" if ready else "False", reason="x", message="x", observed_generation=1
            ),
        ),
        split=split,
        local=LocalStatus(ready=replicas[0], total=replicas[1]) if decision else None,
    )
    return Plan(model.stored(), ModelDeploymentStatus(), status, decision)


class Measured:
    def __init__(self, *plans):
        self.registry = CollectorRegistry()
        self.metrics = ControllerMetrics(self.registry)
        for one in plans:
            self.metrics.planned(one)

    def of(self, name, model=A, **labels):
        labels |= {"namespace": model.ref.namespace, "name": model.ref.name}
        return self.registry.get_sample_value(name, labels)

    def split(self, side, model=A):
        return self.of("beamlit_model_split_ratio", model, side=side)

    def decisions(self, reason):
        return self.of("beamlit_model_decisions_total", reason=reason)

    @property
    def about_models(self):
        return [line for line in generate_latest(self.registry).decode().splitlines() if 'name="' in line]


def test_the_split_of_each_model():
    measured = Measured(planned(A, a_decision(30, Reason.OVERRIDE)), planned(B, a_decision(0, Reason.STEADY)))
    assert (measured.split("local"), measured.split("remote")) == (0.7, 0.3)
    assert (measured.split("local", B), measured.split("remote", B)) == (1, 0)


def test_whether_each_model_is_ready_and_its_replicas():
    steady = a_decision(0, Reason.STEADY)
    measured = Measured(planned(A, steady, replicas=(3, 5)), planned(B, steady, ready=False, replicas=(0, 2)))
    names = ("beamlit_model_ready", "beamlit_model_replicas_ready", "beamlit_model_replicas")
    assert [measured.of(name) for name in names] == [1, 3, 5]
    assert [measured.of(name, B) for name in names] == [0, 0, 2]


def test_changes_are_counted_by_reason_and_repetitions_are_not():
    measured = Measured(
        planned(A, a_decision(0, Reason.STEADY)),
        planned(A, a_decision(0, Reason.STEADY, "other words")),
        planned(A, a_decision(100, Reason.LOCAL_DOWN)),
        planned(A, a_decision(50, Reason.RECOVERING)),
        planned(A, a_decision(20, Reason.RECOVERING)),
        planned(A, a_decision(0, Reason.STEADY)),
    )
    assert [measured.decisions(reason) for reason in ("Steady", "LocalDown", "Recovering")] == [2, 1, 2]


def test_a_model_that_fronts_nothing_has_no_split_and_no_replicas_and_is_not_ready():
    measured = Measured(planned(A, a_decision(0, Reason.STEADY)), planned(A, ready=False))
    assert (measured.split("local"), measured.split("remote")) == (None, None)
    assert measured.of("beamlit_model_replicas") is None
    assert measured.of("beamlit_model_ready") == 0


def test_of_a_model_that_is_gone_only_what_was_counted_stays():
    measured = Measured(planned(A, a_decision(0, Reason.STEADY)))
    for gone in (A, B):
        measured.metrics.forgotten(gone.ref)
    assert all(line.startswith("beamlit_model_decisions_") for line in measured.about_models)


def test_who_stands_by_says_nothing_of_models_and_counts_on():
    measured = Measured(planned(A, a_decision(0, Reason.STEADY)))
    measured.metrics.stand_by()
    assert measured.decisions("Steady") == 1
    assert all(line.startswith("beamlit_model_decisions_") for line in measured.about_models)
    measured.metrics.planned(planned(A, a_decision(100, Reason.LOCAL_DOWN)))
    assert measured.split("remote") == 1


def test_errors_are_there_before_the_first_one_and_durations_are_counted():
    measured = Measured()
    measured.metrics.failed("write")
    measured.metrics.written(0.02)
    value = measured.registry.get_sample_value
    assert [value("beamlit_reconcile_errors_total", {"step": step}) for step in ("plan", "write")] == [0, 1]
    assert value("beamlit_reconcile_duration_seconds_bucket", {"le": "0.025"}) == 1
