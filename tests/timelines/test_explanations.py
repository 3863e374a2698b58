"""Text, status, events and metrics tell one decision: whatever is decided in a timeline, all of them say the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from controller.api.contract.status import ModelDeploymentStatus
from controller.api.schema.scalars import parse_duration
from controller.decision import Decision, Memory, decide
from controller.intent.intent import intent_of_model
from controller.plan.conditions import Findings, conditions_for
from controller.plan.explanation import explain
from controller.plan.plan import Plan
from controller.plan.status import split_status, verdict_statuses, with_decision
from controller.plan.transitions import transitions
from controller.programs.metrics import ControllerMetrics
from tests.support.objects import a_model
from tests.timelines.test_timelines import CASES, START, facts_of, model_of

MODEL = a_model("m")


def plans(case: dict[str, Any]) -> Iterator[tuple[Plan, Decision]]:
    """What shall be written at each step of a case."""
    memory, before = Memory(), ModelDeploymentStatus()
    for step in case["steps"]:
        now = START + parse_duration(step["at"])
        model = model_of(case, step)
        intent = intent_of_model(model, 1)
        facts = facts_of(model, step, now, may_leave=intent.offloads)
        decision, memory = decide(intent.terms, facts, memory, now)
        findings = Findings(1, (), None, (), intent.terms, facts, decision, None, None)
        status = ModelDeploymentStatus(
            observed_generation=1,
            conditions=conditions_for(findings),
            split=split_status(decision, memory, None, now),
            verdicts=verdict_statuses(decision),
            history=with_decision(before.history, decision, now),
        )
        yield Plan(MODEL.stored(), before, status, decision), decision
        before = status


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_text_status_events_and_metrics_agree(path: Path) -> None:
    case = yaml.safe_load(path.read_text())
    registry = CollectorRegistry()
    metrics = ControllerMetrics(registry)
    made: dict[str, int] = {}
    latest = ("", "")
    for (plan, decision), step in zip(plans(case), case["steps"], strict=True):
        now, status = START + parse_duration(step["at"]), plan.status
        metrics.planned(plan)
        # As the API server gives it back.
        stored = MODEL.stored(status=json.loads(json.dumps(status.as_object())))
        known = explain(stored, now)
        split, text, shown = status.split, known.as_text(), known.as_object()

        assert split and known.winner and known.status.as_object() == status.as_object()
        assert known.winner.rule == split.reason == decision.reason
        assert known.winner.message == split.message == decision.message
        assert [(one.rule, one.matched, one.message) for one in known.verdicts] == [
            (one.reason, one.matched, one.message) for one in decision.verdicts
        ]
        assert all(f"{one.reason}" in text and one.message in text for one in decision.verdicts)
        assert f"{decision.split} {decision.reason}" in text
        assert decision.returns in text
        assert [one["rule"] for one in shown["rules"] if one["decides"]] == [decision.reason]
        assert {*shown["notTheCause"]} == {one.reason for one in decision.verdicts if not one.matched}
        assert shown["split"] == status.as_object()["split"]

        offloading = status.condition("Offloading")
        assert offloading and (offloading.reason, offloading.message) == (decision.reason, decision.message)
        assert (offloading.status == "True") is (decision.split.remote > 0) is status.offloading_status
        assert (status.history[0].split, status.history[0].reason) == (str(decision.split), decision.reason)
        for event in transitions(plan.stored, plan.before, status, now):
            if event.reason in {one.reason for one in decision.verdicts}:
                assert event.reason == decision.reason
                assert event.message.endswith(f" {decision.split}: {decision.message}")

        labels = {"namespace": "default", "name": "m"}
        assert registry.get_sample_value("beamlit_model_split_ratio", {**labels, "side": "remote"}) == (
            decision.split.remote / 100
        )
        if latest != (latest := (str(decision.split), str(decision.reason))):
            made[decision.reason] = made.get(decision.reason, 0) + 1
        of_reason = {**labels, "reason": decision.reason.value}
        assert registry.get_sample_value("beamlit_model_decisions_total", of_reason) == made[decision.reason]


def test_every_rule_decides_in_some_timeline() -> None:
    """So the test above sees every rule there is."""
    decisions = [decision for path in CASES for _, decision in plans(yaml.safe_load(path.read_text()))]
    assert {one.reason for one in decisions} == {verdict.reason for one in decisions for verdict in one.verdicts}
