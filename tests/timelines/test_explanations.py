"""Text, status, events and metrics tell one decision: whatever is decided in a timeline, all of them say the same."""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry

from controller.api.contract.health import RemoteHealth
from controller.api.contract.route import Remote, Route
from controller.api.contract.status import ModelDeploymentStatus, SplitStatus
from controller.api.schema.scalars import parse_duration
from controller.decision import Decision, Memory, Reason, SentRequests
from controller.intent.intent import intent_of_model
from controller.observe.observation import Observation
from controller.observe.proxies import Programmed
from controller.plan.conditions import BY_ENVOY
from controller.plan.explanation import Explanation, explain
from controller.plan.plan import Plan, plan
from controller.plan.transitions import transitions
from controller.programs.metrics import ControllerMetrics
from controller.store.events import Event
from controller.store.objects import ObjectRef
from tests.support.objects import a_model, a_service, a_slice
from tests.support.observations import observed
from tests.support.proxies import AllProgrammed
from tests.timelines.test_timelines import CASES, START, facts_of, model_of, samples_of

MODEL = a_model("m").with_remote()
LABELS = {"namespace": "default", "name": "m"}


class Envoys(AllProgrammed):
    """So many of so many Envoys have every route (`4/5`), and the same health of every remote backend."""

    def __init__(self, health: RemoteHealth | None, programmed: str = "1/1") -> None:
        self._health = health
        self._programmed, self._connected = map(int, programmed.split("/"))

    def remote(self, model: ObjectRef, remote: Remote) -> RemoteHealth | None:
        return self._health

    def report(self, model: ObjectRef, route: Route) -> Programmed:
        return Programmed(self._connected, self._programmed)


def observation(case: dict[str, Any], step: dict[str, Any], before: ModelDeploymentStatus) -> Observation:
    """What is known at a step of a case, as the controller observes it."""
    now, model = START + parse_duration(step["at"]), model_of(case, step)
    intent = intent_of_model(model, 1)
    facts = facts_of(model, step, now, may_leave=intent.offloads)
    local = facts.local
    addresses = [f"10.0.0.{number}" for number in range(1, local.total + local.leaving + 1)]
    ready, rest = addresses[: local.ready], addresses[local.ready :]
    waiting, leaving = rest[: local.total - local.ready], rest[local.total - local.ready :]
    slices = a_slice("m").ready(*ready).not_ready(*waiting).terminating(*leaving)
    known = observed(MODEL, a_service("m").port(80), slices, status=before, traffic=facts.traffic)
    return replace(
        known,
        before=before,
        intent=intent,
        remotes=known.remotes if facts.remotes else (),
        samples=tuple(samples_of(model, step, now)),
        proxies=Envoys(facts.remotes[0].health if facts.remotes else None, step.get("envoys", "1/1")).facts(
            known.stored.ref
        ),
        memory=Memory.model_validate(before.memory or {}),
    )


def plans(case: dict[str, Any]) -> Iterator[tuple[Plan, Decision, Explanation, datetime]]:
    """What shall be written at each step of a case, and what explains it once it is."""
    before = ModelDeploymentStatus()
    for step in case["steps"]:
        now = START + parse_duration(step["at"])
        planned = plan(observation(case, step, before), now)
        # As the API server gives it back.
        stored = MODEL.stored(status=json.loads(json.dumps(planned.status.as_object())))
        known, decision = explain(stored, now), planned.decision
        assert decision and f"{decision.split} {decision.reason}" == step["expect"]
        failing = planned.status.condition("FailingOver")
        # What is told of requests that go elsewhere, and what REASON shows, where a case says so.
        assert failing and step.get("tells", failing.reason) == failing.reason, (step["at"], failing)
        assert step.get("shows", planned.status.reason) == planned.status.reason, step["at"]
        yield planned, decision, known, now
        before = known.status


@functools.cache
def plans_of(path: Path) -> tuple[tuple[Plan, Decision, Explanation, datetime], ...]:
    """The plans of a case, made once for all tests that look at them."""
    return tuple(plans(yaml.load(path.read_text(), yaml.CSafeLoader)))


def events_of(plan: Plan, now: datetime) -> tuple[Event, ...]:
    return transitions(plan.stored, plan.before, plan.status, now)


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_text_status_events_and_metrics_agree(path: Path) -> None:
    registry = CollectorRegistry()
    metrics = ControllerMetrics(registry)
    made: dict[str, int] = {}
    latest = ("", "")
    for planned, decision, known, now in plans_of(path):
        metrics.planned(planned)
        in_force = planned.before.split
        shares = value_by(registry, "beamlit_model_split_ratio", "side")
        assert shares == ({"local": in_force.local / 100, "remote": in_force.remote / 100} if in_force else {})
        metrics.written(planned, 0.1)
        status, split, text, shown = planned.status, planned.status.split, known.as_text(), known.as_object()

        assert split and known.winner and known.status.as_object() == status.as_object()
        assert known.winner.rule == split.reason == decision.reason
        assert known.winner.message == decision.message
        assert split.message.startswith(decision.message) and split.message in text
        assert [(one.rule, one.matched, one.message) for one in known.verdicts] == [
            (one.reason, one.matched, one.message) for one in decision.verdicts
        ]
        assert all(f"{one.reason}" in text and one.message in text for one in decision.verdicts)
        assert f"{decision.split} {decision.reason}" in text
        assert decision.returns in text
        assert [one["rule"] for one in shown["rules"] if one["decides"]] == [decision.reason]
        assert {*shown["notTheCause"]} == {one.reason for one in decision.verdicts if not one.matched}
        assert shown["split"] == status.as_object()["split"]

        assert (status.history[0].split, status.history[0].reason) == (str(decision.split), decision.reason)
        of_rules = [one for one in events_of(planned, now) if one.reason in set(Reason)]
        assert [one.reason for one in of_rules] == events_due(planned.before.split, split)
        assert all(one.message.endswith(f" {decision.split}: {split.message}") for one in of_rules)
        if (was := planned.before.split) and was.reason != split.reason == Reason.NOTHING_ANSWERS:
            assert "NotReady" in {one.reason for one in events_of(planned, now)}

        assert registry.get_sample_value("beamlit_model_split_ratio", {**LABELS, "side": "remote"}) == (
            decision.split.remote / 100
        )
        assert value_by(registry, "beamlit_model_split_reason", "reason") == {decision.reason: 1}
        if latest != (latest := (str(decision.split), str(decision.reason))):
            made[decision.reason] = made.get(decision.reason, 0) + 1
        of_reason = {**LABELS, "reason": decision.reason.value}
        assert registry.get_sample_value("beamlit_model_decisions_total", of_reason) == made[decision.reason]
        requests_agree(status, decision, text, shown)
        replicas_agree(status, registry, text)
        signals_agree(status, registry, text, shown)


def events_due(was: SplitStatus | None, split: SplitStatus) -> list[Reason]:
    """Say which rules are told of by an event, each by one: docs/cluster.md, "Events".

    Silent are the first split (Ready tells of it), steps by one rule, another rule that decides on the same split, and
    a model that nothing answers for (NotReady tells of it, with the cause).
    """
    if was is None or split.reason == Reason.NOTHING_ANSWERS:
        return []
    if split.would_be:  # In Shadow, the rules that would decide are told of.
        before = was.would_be or f"{was} {Reason.STEADY}"
        return [Reason.SHADOW] if before.split()[1] != split.would_be.split()[1] else []
    if (was.local, was.remote) == (split.local, split.remote):
        return []
    return [Reason(split.reason)] if was.reason != split.reason or split.reason == Reason.OVERRIDE else []


def value_by(registry: CollectorRegistry, name: str, label: str) -> dict[str, float]:
    """Return the values of a gauge by what one of its labels says."""
    samples = (one for metric in registry.collect() if metric.name == name for one in metric.samples)
    return {one.labels[label]: one.value for one in samples}


NO_ROOM = "what the replicas have no room for"
"""What leaves by a limit is told so, beside what the split sends away, too."""


def requests_agree(status: ModelDeploymentStatus, decision: Decision, text: str, shown: dict[str, Any]) -> None:
    """What Envoy does by itself is told beside what was decided, and everywhere in the same words."""
    offloading, failing = status.condition("Offloading"), status.condition("FailingOver")
    assert offloading and failing and status.split
    by_itself = offloading.reason in BY_ENVOY
    assert (offloading.status == "True") is (by_itself or decision.split.remote > 0) is status.offloading_status
    if by_itself:
        assert not decision.split.remote and status.reason == offloading.reason
        assert "some left by themselves" in text.splitlines()[0]
    else:
        assert offloading.reason == decision.reason
        beside = NO_ROOM in status.split.message
        assert offloading.message == (status.split.message if beside else decision.message)
        leaves = status.detour is not None and status.detour.to_remote
        assert ("some left by themselves" in text.splitlines()[0]) is leaves
        assert beside is (NO_ROOM in failing.message) and (leaves or not beside)
        if beside and (sent := status.traffic):
            counted = f"{sent.remote} of the last {sent.local + sent.remote} requests"
            assert counted in offloading.message and counted in text
    for said in [one for one in (offloading if by_itself else None, failing) if one and one.status == "True"]:
        assert status.split.message.endswith(said.message) and said.message in text
    assert any("FailingOver is True" in one for one in shown["attention"]) is (failing.status == "True")
    if failing.status == "Unknown":
        assert "nothing is concluded" in text and status.detour is None and not by_itself
    assert shown["offloading"]["message"] == offloading.message
    assert shown["failingOver"]["message"] == failing.message
    if (traffic := status.traffic) is not None:
        assert f"{traffic.remote} of the last {traffic.local + traffic.remote} requests (10 s" in text
        assert (shown["traffic"]["local"], shown["traffic"]["remote"]) == (traffic.local, traffic.remote)


def replicas_agree(status: ModelDeploymentStatus, registry: CollectorRegistry, text: str) -> None:
    """How many replicas there are, and what they take."""
    local = status.local
    assert local and f"{local.ready} of {local.total} replicas are ready" in text
    capacity = registry.get_sample_value("beamlit_model_capacity_requests", LABELS)
    assert capacity == local.capacity
    assert (f"ready, which take {local.capacity} requests in flight" in text) is (capacity is not None)
    assert registry.get_sample_value("beamlit_model_replicas_ready", LABELS) == local.ready


def signals_agree(status: ModelDeploymentStatus, registry: CollectorRegistry, text: str, shown: dict[str, Any]) -> None:
    """Whether metrics can be read is what the signals say, wherever it stands."""
    signals, said = status.signals or (), status.condition("SignalsAvailable")
    unknown = [one for one in signals if one.state == "Unknown"]
    assert shown.get("signals", []) == [*map(dict, status.as_object().get("signals", []))]
    for one in signals:
        assert f"{one.name} is {one.current}, its target is {one.target}: {one.state}" in text or one in unknown
    for one in unknown:
        assert f"{one.name} is not known" in text and one.message and one.message in text
        assert said and f"{one.name} cannot be read: {one.message}" in said.message
    assert (said is None) is (not signals)
    if said is None:
        return
    assert (said.status, said.reason) == ("True", "Measured") or unknown
    assert said.reason in {"Measured", *(one.reason for one in unknown)}
    assert shown["signalsAvailable"]["message"] == said.message
    assert any("SignalsAvailable is False" in one for one in shown["attention"]) is (said.status == "False")
    value = {"True": 1, "False": 0}.get(said.status)
    assert registry.get_sample_value("beamlit_model_condition", {**LABELS, "type": "SignalsAvailable"}) == value
    assert registry.get_sample_value("beamlit_model_signals_unknown", LABELS) == len(unknown)
    ratios = {one.name: number_of(one.current) / number_of(one.target) for one in signals if one.current is not None}
    assert value_by(registry, "beamlit_model_signal_target_ratio", "signal") == pytest.approx(ratios)
    assert status.reason != "Steady" or said.status != "False"


def number_of(shown: str) -> float:
    """Read a number as a status shows it; both sides of a comparison are percent, or none is."""
    return float(shown.removesuffix("%"))


def test_every_rule_decides_in_some_timeline_and_all_that_there_is_to_tell_happens() -> None:
    """So the tests above see every rule there is, and each of these."""
    made = [one for path in CASES for one in plans_of(path)]
    assert {one.reason for _, one, _, _ in made} == {
        verdict.reason for _, one, _, _ in made for verdict in one.verdicts
    }
    told = {event.reason for planned, _, _, now in made for event in events_of(planned, now)}
    # NotReady tells that nothing answers.
    assert told & set(Reason) == set(Reason) - {Reason.NOTHING_ANSWERS}
    assert {one.status.local and one.status.local.capacity is not None for one, _, _, _ in made} == {True, False}
    assert {"SignalsNotAvailable", "SignalsAvailable", "ReplicasFail", "AsDecided"} <= told
    away = (one.status.split for one, decision, _, _ in made if decision.split.remote)
    assert any(split and NO_ROOM in split.message for split in away)
    said = {(one.type, one.status, one.reason) for planned, _, _, _ in made for one in planned.status.conditions}
    assert {("Offloading", "True", "Overflow"), ("Offloading", "True", "Failover")} <= said
    assert {one.status.traffic is not None for one, _, _, _ in made} == {True, False}
    assert {("FailingOver", "Unknown", "EnvoysBehind"), ("FailingOver", "True", "ReplicasFail")} <= said
    assert {isinstance(known.traffic, SentRequests) for _, _, known, _ in made} == {True, False}


BEGINS = ("Steady", "Overloaded")
AWAY = ("Overloaded", "CoolingDown")
EDITED = "an-edit-in-the-middle-of-an-overload-holds-at-once"
"""Where what had left comes back since its author says so, whatever is measured."""


def test_each_change_has_the_numbers_of_what_was_measured_also_the_way_back() -> None:
    ways: list[tuple[str, str]] = []
    for path in CASES:
        if path.stem == EDITED:
            continue
        for (was, before, _, _), (planned, decision, _, now) in pairwise(plans_of(path)):
            way = (before.reason, decision.reason)
            is_way = before.reason in AWAY and decision.reason in (*AWAY, "Steady")
            is_same = (before.reason, before.split) == (decision.reason, decision.split)
            if not (is_way or way == BEGINS) or is_same:
                continue
            ways.append(way)
            latest, signals = planned.status.history[0], planned.status.signals or ()
            told = [latest.message]
            if decision.reason != "Overloaded" or way == BEGINS:  # else an event has the numbers of when it began
                told += [one.message for one in events_of(planned, now) if one.reason == decision.reason]
            if way == BEGINS:
                known = [one for one in signals if one.state == "Breached"]
                assert len(told) == 2
            else:
                known = [one for one in signals if one.current is not None]
            words = [f"{one.name} is {one.current} of {one.target}" for one in known]
            assert words and all(one in message for one in words for message in told), (path.stem, told)
            assert latest.message != was.status.history[0].message
    assert {BEGINS, *itertools.product(AWAY, (*AWAY, "Steady"))} - {("CoolingDown", "CoolingDown")} <= {*ways}
