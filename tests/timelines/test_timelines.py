"""Decisions over time: each case is a YAML file whose name is a sentence.

Every case runs twice: once in one go, and once with a restart before every step (timeline 9: the memory goes through
the JSON that `status.memory` holds). Both must decide the same at the same times.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.api.contract.health import RemoteHealth, unknown
from controller.api.resources.metrics import MetricSpec
from controller.api.resources.model import ModelDeployment
from controller.api.schema.scalars import parse_duration
from controller.api.schema.values import parse
from controller.decision import (
    Decision,
    Facts,
    Known,
    LocalFacts,
    Measurement,
    Memory,
    Reason,
    RemoteFacts,
    Sample,
    SentRequests,
    Uncounted,
    Unknown,
    decide,
)
from controller.decision.rules import RULES
from controller.decision.signals import compared, name_of
from controller.intent.intent import intent_of_model
from tests.support.decisions import NEVER_TOGETHER, met_in
from tests.support.processes import ROOT

CASES = sorted(Path(__file__).parent.glob("*.yaml"))
START = datetime(2026, 1, 1, tzinfo=UTC)


def model_of(case: dict[str, Any], step: dict[str, Any]) -> ModelDeployment:
    spec = {"model": "m", "modelSourceRef": {"kind": "Deployment", "name": "m"}, "serviceRef": {"name": "m"}}
    metadata = {"name": "m", "annotations": step.get("annotations", {})}
    return parse(
        ModelDeployment, {"metadata": metadata, "spec": {**spec, **case.get("spec", {}), **step.get("spec", {})}}
    )


def samples_of(model: ModelDeployment, step: dict[str, Any], now: datetime) -> Iterator[tuple[MetricSpec, Sample]]:
    """Each metric by its name: a number, what pods use, or why it is not known.

    It was measured `ago`, or right now, as an average over a `window`.
    """
    offloading = model.spec.offloading_config
    at = now - parse_duration(step.get("ago", "0s"))
    for metric in offloading.metrics if offloading else ():
        value = step["signals"][name_of(metric)]
        yield metric, Unknown(value) if isinstance(value, str) else Known(measurement_of(value, step), at)


def measurement_of(value: Any, step: dict[str, Any]) -> Measurement:
    window = parse_duration(step.get("window", "0s"))
    if not isinstance(value, dict):
        return Measurement(Decimal(str(value)), window=window)
    return Measurement(
        value=Decimal(str(value["used"])),
        pods=value["pods"],
        requests=Decimal(value["requested"]) if "requested" in value else None,
        window=window,
        missing=Uncounted(value.get("missing", 0)),
        unready=Uncounted(value.get("unready", 0)),
    )


def facts_of(model: ModelDeployment, step: dict[str, Any], now: datetime, *, may_leave: bool) -> Facts:
    ready, total = map(int, step["local"].split("/"))
    remote = step.get("remote")
    health = RemoteHealth(healthy=remote == "up") if remote else unknown("not measured")
    remotes = (RemoteFacts("remote", health),) if may_leave and remote != "unusable" else ()
    local = LocalFacts(ready=ready, total=total, leaving=step.get("leaving", 0))
    # Requests to both sides in the last ten seconds, and those that ended, or failed, at the replicas.
    sent, ended = step.get("sent"), {name: step[name] for name in ("served", "failed") if name in step}
    # Of minutes, to one side since the other one got something.
    run = SentRequests(*step["run"], 200.0) if "run" in step else None
    traffic = SentRequests(*sent, 10.0, **ended, run=run) if sent else Unknown("no Envoy reports load")
    return Facts(local, remotes, signals=compared(samples_of(model, step, now), 1), traffic=traffic)


def decisions(case: dict[str, Any], *, restarts: bool) -> Iterator[tuple[timedelta, Decision]]:
    memory = Memory()
    for step in case["steps"]:
        now = START + parse_duration(step["at"])
        if restarts:
            memory = Memory.model_validate_json(memory.model_dump_json(by_alias=True, exclude_none=True))
        model = model_of(case, step)
        intent = intent_of_model(model, 1)
        assert not intent.faults
        facts = facts_of(model, step, now, may_leave=intent.offloads)
        decision, memory = decide(intent.terms, facts, memory, now)
        yield now - START, decision


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
@pytest.mark.parametrize("restarts", [False, True], ids=["in one go", "with a restart before every step"])
def test_timeline(path: Path, restarts: bool) -> None:
    case = yaml.load(path.read_text(), yaml.CSafeLoader)
    made = list(decisions(case, restarts=restarts))
    assert len(made) == len(case["steps"])
    for step, (at, decision) in zip(case["steps"], made, strict=True):
        assert f"{decision.split} {decision.reason}" == step["expect"], f"at {at}: {decision.message}"
        assert (str(decision.would_be) if decision.would_be else None) == step.get("would"), f"at {at}"
        if "wake" in step:
            assert decision.wake_at == START + parse_duration(step["wake"]), f"at {at}"
    if "changes" in case:
        splits = [decision.split for _, decision in made]
        assert sum(a != b for a, b in itertools.pairwise(splits)) == case["changes"]


def test_every_decision_explains_itself() -> None:
    for path in CASES:
        for _, decision in decisions(yaml.load(path.read_text(), yaml.CSafeLoader), restarts=False):
            assert decision.message and decision.returns
            assert next(verdict.reason for verdict in decision.verdicts if verdict.matched) == decision.reason
            assert all(verdict.message for verdict in decision.verdicts)


def all_decisions() -> str:
    """Write down every decision of every case, with all of its words, and how this process hashes a text."""
    cases = (yaml.load(path.read_text(), yaml.CSafeLoader) for path in CASES)
    made = [repr(decision) for case in cases for _, decision in decisions(case, restarts=True)]
    return json.dumps([made, hash("a text")])


def test_the_same_is_decided_whatever_order_a_set_has() -> None:
    program = "from tests.timelines.test_timelines import all_decisions; print(all_decisions())"
    other = {**os.environ, "PYTHONHASHSEED": "4711"}
    ran = subprocess.run([sys.executable, "-c", program], env=other, cwd=ROOT, check=True, capture_output=True)
    (there, seed), (here, own) = json.loads(ran.stdout), json.loads(all_decisions())
    assert seed != own, "a set of texts has another order there"
    assert there == here


def test_each_two_rules_that_can_meet_do_so_in_some_timeline() -> None:
    met = set[tuple[Reason, Reason]]()
    for path in CASES:
        for _, decision in decisions(yaml.load(path.read_text(), yaml.CSafeLoader), restarts=False):
            met |= met_in(decision)
    assert met.isdisjoint(NEVER_TOGETHER)
    assert met | NEVER_TOGETHER == set(itertools.combinations([reason for reason, _ in RULES], 2))
