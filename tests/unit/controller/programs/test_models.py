"""Where a command looks for its model, and a write that others get ahead of."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from controller.api.timing import Timing
from controller.plan.by_hand import PAUSE
from controller.programs.by_hand import Direction, Hand, Outcome, _in_force, _say_what_is_in_the_way, _write
from controller.programs.models import DEFAULT_SERVER, FoundModel, ModelError, Place, UnreachableError
from controller.store.protocol import ConflictError
from tests.support.objects import a_model, a_service, a_slice
from tests.support.observations import NOW, planned


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """The environment of somebody who has no kubeconfig."""
    return {"HOME": str(tmp_path)}


def with_kubeconfig(home: dict[str, str]) -> dict[str, str]:
    file = Path(home["HOME"], ".kube", "config")
    file.parent.mkdir()
    file.write_text("{}")
    return home


def test_a_server_that_is_named_is_asked_whatever_else_there_is(home):
    place = Place(server="http://10.0.0.1:19000")
    assert place.chosen(with_kubeconfig(home)) == place


def test_a_cluster_goes_before_the_usual_run(home):
    assert Place().chosen(with_kubeconfig(home)) == Place()
    assert Place().chosen({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}) == Place()


def test_where_there_is_no_way_to_a_cluster_the_usual_run_is_asked(home):
    assert Place(namespace="team").chosen(home) == Place(server=DEFAULT_SERVER, namespace="team")


@pytest.mark.parametrize("place", [Place(kubeconfig=Path("/nowhere/config")), Place(context="prod")])
def test_a_cluster_that_is_asked_for_is_never_replaced_by_a_run(home, place):
    with pytest.raises(UnreachableError):
        place.chosen(home)
    with pytest.raises(UnreachableError, match="no such file"):
        Place().chosen({**home, "KUBECONFIG": "/nowhere/config"})


def test_the_options_that_lead_to_the_same_place_are_those_of_a_shell():
    assert Place().options == ""
    place = Place(kubeconfig=Path("/my files/config"), context="prod", namespace="team")
    assert place.options == "--kubeconfig '/my files/config' --context prod -n team"


class WrittenByOthers:
    """Models that somebody else writes so many times, each right before we do."""

    def __init__(self, times: int, **annotations: str) -> None:
        self.left = times
        self.annotations = annotations
        self.patched: list[str] = []

    async def find(self, name):
        return FoundModel(a_model(name).annotated(**self.annotations).stored(version=f"{9 - self.left}"))

    async def annotate(self, stored, changes):
        if self.left:
            self.left -= 1
            raise ConflictError("it changed")
        self.patched.append(stored.resource_version)
        return stored


def written(models: WrittenByOthers):
    return asyncio.run(_write(models, a_model().stored(version="1"), PAUSE))


def test_an_object_that_was_written_in_between_is_read_anew():
    models = WrittenByOthers(2)
    before, _ = written(models)
    assert (models.patched, before.resource_version) == (["9"], "9")


def test_what_somebody_else_wrote_in_between_is_not_written_again():
    models = WrittenByOthers(1, **{"beamlit.com/paused": "true"})
    before, after = written(models)
    assert models.patched == []
    assert before is after


def test_it_is_given_up_in_the_end():
    with pytest.raises(ModelError, match="is written all the time: 5 attempts"):
        written(WrittenByOthers(100))


MODEL = a_model().with_remote("r")


class ComesBack(WrittenByOthers):
    """Models that nobody can ask at first."""

    async def find(self, name):
        if self.left:
            self.left -= 1
            raise UnreachableError("connection refused")
        status = planned(MODEL.paused(), a_service().port(80), a_slice().ready("10.0.0.1")).as_object()
        return FoundModel(MODEL.paused().stored(status=status))


def test_who_waits_is_patient_with_a_server_that_restarts():
    told = []
    hand = Hand(told.append, lambda: NOW, Timing(status_looked_at_every=0), timedelta(minutes=1))
    found = FoundModel(MODEL.paused().stored())
    assert asyncio.run(_in_force(ComesBack(2), found, PAUSE, hand)) is Outcome.DONE
    assert told == ["  in force      100/0 Paused: paused: the split stays 100/0"]


def test_who_waits_is_told_in_the_end_that_nobody_answers():
    told = []
    hand = Hand(told.append, lambda: NOW, Timing(status_looked_at_every=0), timedelta(milliseconds=50))
    asyncio.run(_in_force(ComesBack(10**9), FoundModel(MODEL.paused().stored()), PAUSE, hand))
    assert told in (
        ["  not in force  connection refused"],
        ["  not in force  no controller has looked at this model yet"],
    )


@pytest.mark.parametrize(("model", "notes"), [(MODEL, 0), (MODEL.offloading(maxRequestsPerReplica=4), 1)])
def test_who_keeps_requests_local_is_told_of_the_limit_that_sends_some_away(model, notes):
    told = []
    status = planned(model, a_service().port(80), a_slice().ready("10.0.0.1")).as_object()
    hand = Hand(told.append, lambda: NOW, Timing())
    _say_what_is_in_the_way(model.stored(status=status), Direction(remote=0).annotations(NOW), hand)
    assert len(told) == notes
    assert all(line.startswith("  note   what is more than 4 requests in flight leaves all the same") for line in told)
