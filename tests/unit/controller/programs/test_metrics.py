"""What Prometheus is told of the models, of the controller's work, and of what clients got."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime

import httpx
import pytest
from prometheus_client import CollectorRegistry, generate_latest

from controller.api.contract.status import Condition, LocalStatus, ModelDeploymentStatus, SignalStatus, SplitStatus
from controller.decision import Reason
from controller.gateway.admin import EnvoyAdmin
from controller.plan.plan import Plan
from controller.programs.metrics import ControllerMetrics, GatewayMetrics
from tests.support.decisions import a_decision
from tests.support.objects import a_model
from tests.support.waiting import until

NOW = datetime(2026, 1, 1, tzinfo=UTC)
A, B = a_model("a"), a_model("b")


def planned(model, decision=None, *, ready=True, replicas=(1, 2), capacity=None, signals=(), others=()):
    """What a model shall be; without a decision it fronts nothing. `others` are conditions beside Ready."""
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
            *(
                Condition(type=type_, status=status, reason="x", message="x", observed_generation=1)
                for type_, status in others
            ),
        ),
        split=split,
        local=LocalStatus(ready=replicas[0], total=replicas[1], capacity=capacity) if decision else None,
        signals=tuple(
            SignalStatus(name=name, current=current, target=target, state="Clear" if current else "Unknown")
            for name, current, target in signals
        )
        or None,
    )
    return Plan(model.stored(), ModelDeploymentStatus(), status, decision)


class Measured:
    def __init__(self, *plans):
        self.registry = CollectorRegistry()
        self.metrics = ControllerMetrics(self.registry)
        for one in plans:
            self.carried_out(one)

    def carried_out(self, plan):
        self.metrics.planned(plan)
        self.metrics.written(plan, 0.02)

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


def test_the_reason_of_a_split_is_one_at_a_time():
    measured = Measured(planned(A, a_decision(100, Reason.LOCAL_DOWN)), planned(B, a_decision(0, Reason.STEADY)))
    measured.carried_out(planned(A, a_decision(50, Reason.RECOVERING)))
    reasons = [measured.of("beamlit_model_split_reason", reason=reason) for reason in ("LocalDown", "Recovering")]
    assert reasons == [None, 1]
    assert measured.of("beamlit_model_split_reason", B, reason="Steady") == 1


def test_what_the_replicas_take_together_has_no_sample_without_a_limit():
    steady = a_decision(0, Reason.STEADY)
    measured = Measured(planned(A, steady, capacity=12), planned(B, steady))
    assert measured.of("beamlit_model_capacity_requests") == 12
    assert measured.of("beamlit_model_capacity_requests", B) is None
    measured.metrics.planned(planned(A, steady))
    assert measured.of("beamlit_model_capacity_requests") is None


def fronted(status, reason):
    steady = planned(A, a_decision(0, Reason.STEADY))
    condition = Condition(type="Fronted", status=status, reason=reason, message="x", observed_generation=1)
    return replace(steady, status=steady.status.model_copy(update={"conditions": (condition,)}))


def test_why_clients_are_not_led_to_the_gateway_is_one_reason_at_a_time():
    measured = Measured(fronted("False", "Pending"), fronted("False", "NotPermitted"))
    reasons = {"Pending": None, "NotPermitted": 1}
    assert {one: measured.of("beamlit_model_not_fronted", reason=one) for one in reasons} == reasons
    measured.metrics.planned(fronted("True", "TakenOver"))
    assert measured.of("beamlit_model_not_fronted", reason="NotPermitted") is None


@pytest.mark.parametrize("reason", ["NotAsked", "Disabled", "Deleted"])
def test_who_does_not_ask_to_be_fronted_is_not_counted(reason):
    measured = Measured(fronted("False", reason))
    assert not [line for line in measured.about_models if line.startswith("beamlit_model_not_fronted")]


def test_a_condition_is_one_or_zero_and_has_no_sample_while_it_is_unknown():
    steady, kinds = a_decision(0, Reason.STEADY), ("Ready", "FailingOver", "RemoteHealthy", "Paused")
    others = (("FailingOver", "True"), ("RemoteHealthy", "Unknown"), ("Paused", "False"))
    measured = Measured(planned(A, steady, ready=False, others=others))
    assert [measured.of("beamlit_model_condition", type=kind) for kind in kinds] == [0, 1, None, 0]
    measured.metrics.planned(planned(A, steady, others=(("FailingOver", "Unknown"), ("RemoteHealthy", "True"))))
    assert [measured.of("beamlit_model_condition", type=kind) for kind in kinds] == [1, None, 1, None]


def test_a_signal_is_shown_against_its_target_and_has_no_sample_while_it_is_unknown():
    signals = [("cpu", "45%", "90%"), ("queue", "6", "4"), ("lost", None, "4"), ("tiny", "0.001", "0.004")]
    signals.append(("shown as nothing", "1", "0"))
    measured = Measured(planned(A, a_decision(0, Reason.STEADY), signals=signals))
    shown = {name: measured.of("beamlit_model_signal_target_ratio", signal=name) for name, *_ in signals}
    assert shown == {"cpu": 0.5, "queue": 1.5, "lost": None, "tiny": 0.25, "shown as nothing": None}
    assert measured.of("beamlit_model_signals_unknown") == 1
    measured.metrics.planned(planned(A, a_decision(0, Reason.STEADY), signals=[("cpu", None, "90%")]))
    assert [measured.of("beamlit_model_signal_target_ratio", signal=name) for name in shown] == [None] * 5
    measured.metrics.planned(planned(A, a_decision(0, Reason.STEADY)))
    assert measured.of("beamlit_model_signals_unknown") is None


def test_of_two_signals_with_one_name_the_one_that_is_closer_to_its_target_is_shown():
    signals = [("queue", "1", "4"), ("queue", "3", "4"), ("queue", "2", "4")]
    measured = Measured(planned(A, a_decision(0, Reason.STEADY), signals=signals))
    assert measured.of("beamlit_model_signal_target_ratio", signal="queue") == 0.75


def test_a_signal_that_is_a_long_expression_has_a_short_name():
    measured = Measured(planned(A, a_decision(0, Reason.STEADY), signals=[("sum(queue) + " * 300, "1", "4")]))
    (line,) = [line for line in measured.about_models if "signal=" in line]
    assert len(line) < 200


def test_a_model_that_fronts_nothing_has_no_split_and_no_replicas_and_is_not_ready():
    measured = Measured(planned(A, a_decision(0, Reason.STEADY)), planned(A, ready=False))
    assert (measured.split("local"), measured.split("remote")) == (None, None)
    assert measured.of("beamlit_model_replicas") is None
    assert measured.of("beamlit_model_ready") == 0


def test_of_a_model_that_is_gone_nothing_stays():
    measured = Measured(planned(A, a_decision(0, Reason.STEADY)), planned(A, a_decision(100, Reason.LOCAL_DOWN)))
    measured.carried_out(planned(B, a_decision(0, Reason.STEADY)))
    measured.metrics.forgotten(A.ref)
    assert measured.about_models
    assert not [line for line in measured.about_models if 'name="a"' in line]
    # It may come again, and is counted anew.
    measured.carried_out(planned(A, a_decision(0, Reason.STEADY)))
    assert measured.decisions("Steady") == 1
    for gone in (A, B, B):
        measured.metrics.forgotten(gone.ref)
    assert not measured.about_models


def test_who_stands_by_says_nothing_of_models():
    measured = Measured(planned(A, a_decision(0, Reason.STEADY)), planned(B, ready=False))
    measured.metrics.stand_by()
    assert not measured.about_models
    measured.carried_out(planned(A, a_decision(100, Reason.LOCAL_DOWN)))
    assert measured.split("remote") == 1
    assert measured.decisions("LocalDown") == 1


def test_a_split_that_could_not_be_written_is_in_no_metric_and_what_was_observed_is():
    steady, down = planned(A, a_decision(0, Reason.STEADY)), planned(A, a_decision(100, Reason.LOCAL_DOWN))
    measured, down = Measured(steady), replace(down, before=steady.status)
    for _ in range(3):  # each is refused, or left to another controller
        measured.metrics.planned(
            replace(down, status=down.status.model_copy(update={"local": LocalStatus(ready=0, total=2)}))
        )
        assert (measured.split("remote"), measured.of("beamlit_model_split_reason", reason="Steady")) == (0, 1)
        assert (measured.decisions("LocalDown"), measured.decisions("Steady")) == (None, 1)
        assert measured.of("beamlit_model_replicas_ready") == 0
    measured.metrics.written(down, 0.02)
    assert (measured.split("remote"), measured.of("beamlit_model_split_reason", reason="Steady")) == (1, None)
    measured.metrics.planned(replace(down, before=down.status))  # it came back
    assert (measured.decisions("LocalDown"), measured.decisions("Steady")) == (1, 1)


def test_a_controller_that_starts_shows_what_the_one_before_it_wrote():
    steady = planned(A, a_decision(0, Reason.STEADY))
    measured = Measured()
    measured.metrics.planned(replace(steady, before=steady.status))
    assert (measured.split("local"), measured.decisions("Steady")) == (1, 1)


def test_errors_are_there_before_the_first_one_and_durations_are_counted():
    measured = Measured()
    measured.metrics.failed("write")
    measured.metrics.written(planned(A, a_decision(0, Reason.STEADY)), 0.02)
    value = measured.registry.get_sample_value
    assert [value("beamlit_reconcile_errors_total", {"step": step}) for step in ("plan", "write")] == [0, 1]
    assert value("beamlit_reconcile_duration_seconds_bucket", {"le": "0.025"}) == 1


CHAT = (
    "http.model/default/chat.v1.downstream_rq_2xx: 5\n"
    "http.model/default/chat.v1.downstream_rq_4xx: 0\n"
    "http.model/default/chat.v1.downstream_rq_5xx: 2\n"
    "http.model/default/chat.v1.downstream_rq_active: 3\n"
    "http.model/default/chat.v1.downstream_rq_time: "
    "B0.5(0,0) B10(1,1) B50(1,4) B600000(1,6) B1.8e+06(1,7) B3.6e+06(1,7)\n"
)


class AnEnvoy:
    """The admin interface of one that answers with these statistics, or waits until it is told to answer."""

    def __init__(self, text):
        self.text, self.asked, self.free, self.is_asked = text, 0, asyncio.Event(), asyncio.Event()
        self.free.set()
        transport = httpx.MockTransport(self.answer)
        self.admin = EnvoyAdmin(httpx.AsyncClient(transport=transport, base_url="http://envoy"))

    async def answer(self, _):
        self.asked += 1
        self.is_asked.set()
        await self.free.wait()
        return httpx.Response(200 if self.text else 503, text=self.text)


def counting(envoy, *, within=30.0, every=0.0):
    registry = CollectorRegistry()
    metrics = GatewayMetrics(registry, within, every)
    metrics.envoy = envoy.admin

    def of(metric, /, **labels):
        labels = {"namespace": "default", "name": "chat.v1"} | labels
        return registry.get_sample_value(f"beamlit_gateway_{metric}", labels)

    return metrics, of


async def test_what_clients_got_is_what_envoy_counted():
    metrics, of = counting(AnEnvoy(CHAT))
    await metrics.refresh()
    assert [of("requests_total", code=code) for code in ("2xx", "4xx", "5xx")] == [5, 0, 2]
    assert of("requests_in_flight") == 3
    bounds = ("0.01", "0.05", "+Inf")
    assert [of("request_duration_seconds_bucket", le=bound) for bound in bounds] == [1, 4, 7]


async def test_what_comes_in_by_host_counts_for_no_model():
    metrics, of = counting(AnEnvoy(CHAT + CHAT.replace("model/default/chat.v1", "gateway/hosts").replace(": 2", ": 9")))
    await metrics.refresh()
    assert of("requests_total", code="5xx", namespace="", name="") == 9
    assert of("requests_total", code="5xx") == 2


async def test_what_is_of_no_front_is_not_counted():
    text = "".join(CHAT.replace("model/", prefix) for prefix in ("remote/model/", "local/model/", "admin/x/"))
    metrics, _ = counting(AnEnvoy(text + "http.admin.downstream_rq_5xx: 7\n"))
    await metrics.refresh()
    assert [family.samples for family in metrics.collect()] == [[], [], []]


async def test_an_envoy_that_does_not_answer_has_no_samples():
    envoy = AnEnvoy(CHAT)
    metrics, of = counting(envoy)
    await metrics.refresh()
    envoy.text = ""
    await metrics.refresh()
    assert of("requests_in_flight") is None


async def test_an_envoy_that_takes_too_long_has_no_samples():
    envoy = AnEnvoy(CHAT)
    metrics, of = counting(envoy, within=0.01)

    async def is_answered():
        await metrics.refresh()
        return of("requests_in_flight") == 3

    # On a busy machine so little time may be over before anybody had a turn.
    await until(is_answered, "it answers in time")
    envoy.free.clear()
    await metrics.refresh()
    assert of("requests_in_flight") is None


async def test_however_many_ask_an_envoy_is_asked_once():
    envoy = AnEnvoy(CHAT)
    metrics, of = counting(envoy, every=3600.0)
    await asyncio.gather(*(metrics.refresh() for _ in range(20)))
    await metrics.refresh()
    assert (envoy.asked, of("requests_in_flight")) == (1, 3)


async def test_who_goes_away_does_not_keep_the_answer_from_others():
    envoy = AnEnvoy(CHAT)
    envoy.free.clear()
    metrics, of = counting(envoy, every=3600.0)
    first, second = (asyncio.create_task(metrics.refresh()) for _ in range(2))
    await envoy.is_asked.wait()
    first.cancel()
    envoy.free.set()
    await second
    assert (first.cancelled(), envoy.asked, of("requests_in_flight")) == (True, 1, 3)
