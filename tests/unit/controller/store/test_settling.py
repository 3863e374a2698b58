from __future__ import annotations

import pytest

from controller.api.timing import FolderTiming
from controller.store.directory.files import Sighting, Stamp, changed, next_look, settled, sight

TIMING = FolderTiming(quiet=0.1, together=0.5, losing=0.4, emptied=1.0, look_again=0.03)

OLD, NEW = Stamp(1, 0, 0, 1), Stamp(2, 0, 0, 1)


def test_a_file_that_looks_the_same_keeps_the_time_of_its_first_sighting() -> None:
    first = sight({}, {"a": OLD}, 1.0)
    assert sight(first, {"a": OLD}, 2.0) == {"a": Sighting(OLD, 1.0)}
    assert sight(first, {"a": NEW}, 2.0) == {"a": Sighting(NEW, 2.0)}


def test_a_file_that_is_gone_is_sighted_as_gone() -> None:
    first = sight({}, {"a": OLD}, 1.0)
    gone = sight(first, {}, 2.0)
    assert gone == {"a": Sighting(None, 2.0)}
    assert sight(gone, {}, 3.0) == gone


def test_only_what_differs_from_what_is_believed_is_changed() -> None:
    sightings = {"same": Sighting(OLD, 0.0), "new": Sighting(NEW, 0.0), "gone": Sighting(None, 0.0)}
    believed = {"same": OLD, "new": OLD, "gone": OLD}
    assert changed(sightings, believed).keys() == {"new", "gone"}
    assert changed({"never": Sighting(None, 0.0)}, {}) == {}


@pytest.mark.parametrize(("age", "ready"), [(0.0, False), (0.09, False), (0.11, True)])
def test_a_file_is_believed_after_a_tenth_of_a_second_of_rest(age: float, ready: bool) -> None:
    assert bool(settled({"a": Sighting(NEW, 10.0)}, 10.0 + age, TIMING)) is ready


def test_a_file_at_rest_waits_for_one_in_motion_but_not_for_ever() -> None:
    changes = {"a": Sighting(NEW, 10.0), "b": Sighting(NEW, 10.15)}
    assert settled(changes, 10.2, TIMING) == {}
    assert settled(changes, 10.26, TIMING).keys() == {"a", "b"}
    changes = {"a": Sighting(NEW, 10.0), "log": Sighting(NEW, 10.55)}
    assert settled(changes, 10.56, TIMING).keys() == {"a"}


def test_the_next_look_is_when_the_first_change_may_be_believed() -> None:
    assert next_look({}, {}, 10.0, TIMING) is None
    changes = {"a": Sighting(NEW, 10.0), "b": Sighting(NEW, 9.95)}
    assert next_look(changes, {}, 10.0, TIMING) == pytest.approx(0.05)
    assert next_look(changes, {"a": 1.0, "b": 0.4}, 10.0, TIMING) == pytest.approx(0.35)
    assert next_look({"a": Sighting(NEW, 0.0)}, {}, 10.0, TIMING) == TIMING.look_again
