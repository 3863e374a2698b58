"""Objects as the version before wrote them are read, and go on as they were: an upgrade moves no traffic."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml

from controller.api.contract.health import RemoteHealth
from controller.api.contract.status import ModelDeploymentStatus
from controller.api.schema.values import parse
from controller.intent.remotes import remotes_of
from controller.observe.index import read_intent
from controller.observe.observation import Observation
from controller.observe.references import front_of_route
from controller.plan.plan import plan
from controller.plan.transitions import transitions, urgency
from controller.runtime.budget import Urgency
from controller.store.objects import ObjectRef, StoredObject
from tests.support.indexed import view_of
from tests.support.objects import a_slice
from tests.support.proxies import AllProgrammed

RECORDED = yaml.load((Path(__file__).parent / "recorded/objects-before-kinds.yaml").read_text(), yaml.CSafeLoader)
NOW = datetime(2026, 11, 1, 12, tzinfo=UTC)
GONE = {"every replica is gone", "an object that cannot be read"}
# Its reason was Disabled, as if it were not enabled.
RENAMED = {"without a remote backend"}
# It was said to have no effect, and has one now.
HAS_AN_EFFECT = {("with a limit and a metric", "Accepted")}
# When each was written: what depends on time goes on from there.
WRITTEN = {
    "every replica is gone": 60,
    "an object that cannot be read": 90,
    "on its way back": 122,
    "the remote backend is down": 30,
    "split by hand": 10,
}


def stored(name: str) -> StoredObject:
    raw = RECORDED[name]
    return StoredObject(ObjectRef(raw["kind"], raw["metadata"]["namespace"], raw["metadata"]["name"]), raw)


class NothingNew(AllProgrammed):
    """The first moments after the upgrade: no backend was checked yet."""


def observed(name: str) -> Observation:
    known = read_intent(stored(name))
    addresses = "10.0.0.1", "10.0.0.2"
    slices = a_slice().not_ready(*addresses) if name in GONE else a_slice().ready(*addresses)
    if known.intent is None:
        return Observation(known.stored, known.status, None, known.errors)
    front = front_of_route(known.status.route, view_of(slices))
    return Observation(
        stored=known.stored,
        before=known.status,
        intent=known.intent,
        front=front,
        remotes=remotes_of(known.intent, None),
        proxies=NothingNew().facts(known.ref),
        memory=known.memory,
    )


def planned(name: str, *, later: float = 0.5):
    return plan(observed(name), NOW + timedelta(seconds=WRITTEN.get(name, 0) + later))


@pytest.mark.parametrize("name", RECORDED)
def test_a_status_is_read_and_written_as_it_was(name):
    raw = RECORDED[name]["status"]
    written = parse(ModelDeploymentStatus, raw).as_object()
    assert written.pop("reason")  # What this version says besides, of what the one before wrote.
    assert written == raw


@pytest.mark.parametrize("name", RECORDED)
def test_an_upgrade_keeps_routes_splits_ports_and_history(name):
    before, after = parse(ModelDeploymentStatus, RECORDED[name]["status"]), planned(name).status
    assert after.route == before.route
    assert after.route.digest == before.route.digest
    assert (after.serving_port, str(after.split), after.split.since) == (
        before.serving_port,
        str(before.split),
        before.split.since,
    )
    if name not in RENAMED:
        # What explains it is new.
        split = after.split.model_copy(update={"returns": None, "changes_at": None})
        assert (split, after.history) == (before.split, before.history)
        assert before.memory == {name: after.memory[name] for name in before.memory}
    assert urgency(before, after) is not Urgency.ROUTE


@pytest.mark.parametrize("name", RECORDED)
def test_an_upgrade_tells_nothing(name):
    before, after = parse(ModelDeploymentStatus, RECORDED[name]["status"]), planned(name).status
    assert transitions(stored(name), before, after, NOW) == ()
    said = {one.type: one for one in before.conditions}
    new = {(one.type, one.status) for one in after.conditions if one.type not in said}
    assert new <= {("FailingOver", "False")}
    for one in after.conditions:
        was = said.get(one.type, one)
        assert (one.type, one.status) == (one.type, was.status)
        if name not in RENAMED and (name, one.type) not in HAS_AN_EFFECT:
            assert one == was


def test_what_was_under_way_goes_on():
    assert str(planned("on its way back", later=2).status.split) == "83/17"
    assert str(planned("on its way back", later=60).status.split) == "100/0"


def test_what_was_known_of_a_remote_backend_holds_until_it_is_checked():
    assert planned("the remote backend is down").status.split.reason == "RemoteDown"
    observation = observed("the remote backend is down")
    assert observation.health_of(observation.remotes[0]).reason == "ErrorAnswer"
    words = "seen from the xDS server: GET /healthz answers 200"
    known = RemoteHealth(healthy=True, reason="Answering", message=words, since=NOW)
    assert observed("steady").health_of(observation.remotes[0]) == known


def test_another_backend_inherits_nothing():
    observation = observed("the remote backend is down")
    (remote,) = observation.remotes
    assert observation.health_of(remote.model_copy(update={"host": "another.example"})) is None
    assert replace(observation, before=ModelDeploymentStatus()).health_of(remote) is None
