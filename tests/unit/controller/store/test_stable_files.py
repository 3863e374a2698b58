from __future__ import annotations

import pytest

from controller.api.timing import FolderTiming
from controller.store.directory.files import Stamp, TrackedFile, changed_files, next_scan, stable_files, track

TIMING = FolderTiming(quiet=0.1, together=0.5, losing=0.4, emptied=1.0, look_again=0.03)

OLD, NEW = Stamp(1, 0, 0, 1), Stamp(2, 0, 0, 1)


def test_a_file_that_looks_the_same_keeps_the_time_since_when_it_does() -> None:
    first = track({}, {"a": OLD}, 1.0)
    assert track(first, {"a": OLD}, 2.0) == {"a": TrackedFile(OLD, 1.0)}
    assert track(first, {"a": NEW}, 2.0) == {"a": TrackedFile(NEW, 2.0)}


def test_a_file_that_is_gone_is_tracked_as_gone() -> None:
    first = track({}, {"a": OLD}, 1.0)
    gone = track(first, {}, 2.0)
    assert gone == {"a": TrackedFile(None, 2.0)}
    assert track(gone, {}, 3.0) == gone


def test_only_what_differs_from_what_was_accepted_is_changed() -> None:
    tracked = {"same": TrackedFile(OLD, 0.0), "new": TrackedFile(NEW, 0.0), "gone": TrackedFile(None, 0.0)}
    accepted = {"same": OLD, "new": OLD, "gone": OLD}
    assert changed_files(tracked, accepted).keys() == {"new", "gone"}
    assert changed_files({"never": TrackedFile(None, 0.0)}, {}) == {}


@pytest.mark.parametrize(("age", "ready"), [(0.0, False), (0.09, False), (0.11, True)])
def test_a_file_is_accepted_after_a_tenth_of_a_second_of_rest(age: float, ready: bool) -> None:
    assert bool(stable_files({"a": TrackedFile(NEW, 10.0)}, 10.0 + age, TIMING)) is ready


def test_a_file_at_rest_waits_for_one_in_motion_but_not_for_ever() -> None:
    changes = {"a": TrackedFile(NEW, 10.0), "b": TrackedFile(NEW, 10.15)}
    assert stable_files(changes, 10.2, TIMING) == {}
    assert stable_files(changes, 10.26, TIMING).keys() == {"a", "b"}
    changes = {"a": TrackedFile(NEW, 10.0), "log": TrackedFile(NEW, 10.55)}
    assert stable_files(changes, 10.56, TIMING).keys() == {"a"}


def test_the_next_scan_is_when_the_first_change_may_be_accepted() -> None:
    assert next_scan({}, {}, 10.0, TIMING) is None
    changes = {"a": TrackedFile(NEW, 10.0), "b": TrackedFile(NEW, 9.95)}
    assert next_scan(changes, {}, 10.0, TIMING) == pytest.approx(0.05)
    assert next_scan(changes, {"a": 1.0, "b": 0.4}, 10.0, TIMING) == pytest.approx(0.35)
    assert next_scan({"a": TrackedFile(NEW, 0.0)}, {}, 10.0, TIMING) == TIMING.look_again
