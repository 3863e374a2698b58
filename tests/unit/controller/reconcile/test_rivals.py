"""Two controllers over one object: who was there first goes on, and the other yields."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.api.timing import REAL
from controller.reconcile.rivals import Rivals, status_manager
from controller.store.objects import ObjectRef
from tests.support.objects import a_model

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MODEL = ObjectRef("ModelDeployment", "default", "a")
YIELDS = timedelta(seconds=REAL.statuses.yields_for)
ALIVE = timedelta(seconds=REAL.statuses.rival_answers_within)


def a_rivalry(*, own: str = "home/ours") -> Rivals:
    return Rivals(own, REAL.statuses)


def test_a_status_that_is_ours_or_nobodys_is_told_of_by_nobody():
    rivals = a_rivalry()
    for writer in ("", "home/ours", "", "home/ours"):
        assert rivals.see(MODEL, writer, NOW) == ""
        rivals.wrote(MODEL, writer, NOW)
    assert rivals.yields_until(MODEL, NOW) is None


def losing_its_name(rivals: Rivals, now: datetime) -> str:
    """Our status is nobody's, and we write it anew unless we yield."""
    rivals.see(MODEL, "home/ours", now)
    words = rivals.see(MODEL, "", now, "manager")
    if rivals.yields_until(MODEL, now) is None:
        rivals.wrote(MODEL, "", now)
    return words


def test_to_who_takes_a_status_back_without_a_name_we_yield_the_third_time_and_later_try_again():
    rivals = a_rivalry()
    at = [NOW + number * ALIVE / 2 for number in range(3)]
    assert [losing_its_name(rivals, one) for one in at[:2]] == ["", ""]
    assert losing_its_name(rivals, at[2]) == (
        "another controller (field manager manager) writes this status each time that home/ours did, and says no name "
        "(status.controller); home/ours writes it no more for 600 s: let one of them alone watch this namespace"
    )
    assert rivals.yields_until(MODEL, at[2]) == at[2] + YIELDS
    assert rivals.yielded(at[2]) == 1
    # What it writes meanwhile is no news.
    assert rivals.see(MODEL, "", at[2] + ALIVE) == ""
    later = at[2] + YIELDS
    assert rivals.yields_until(MODEL, later) is None
    rivals.wrote(MODEL, "", later)
    assert [bool(losing_its_name(rivals, later)) for _ in range(3)] == [False, False, True]


def test_who_empties_a_status_by_hand_now_and_then_is_no_controller():
    rivals = a_rivalry()
    assert not any(losing_its_name(rivals, NOW + number * ALIVE) for number in range(10))


@pytest.mark.parametrize(
    ("entries", "manager"),
    [
        (None, ""),
        ([{"manager": "kubectl", "operation": "Apply", "time": "2026-01-03T00:00:00Z"}], ""),
        (
            [
                {"manager": "ours", "subresource": "status", "time": "2026-01-01T00:00:00Z"},
                {"manager": "theirs", "subresource": "status", "time": "2026-01-02T00:00:00Z"},
                {"manager": "kubectl", "time": "2026-01-03T00:00:00Z"},
            ],
            "theirs",
        ),
    ],
)
def test_kubernetes_knows_who_wrote_a_status_last(entries, manager):
    assert status_manager(a_model().saying(entries, "metadata", "managedFields").stored()) == manager


def test_what_another_left_behind_is_taken_over():
    rivals = a_rivalry()
    assert rivals.see(MODEL, "old/theirs", NOW) == ""
    assert rivals.yields_until(MODEL, NOW) is None
    rivals.wrote(MODEL, "old/theirs", NOW)
    assert rivals.see(MODEL, "home/ours", NOW) == ""


def test_who_took_a_status_over_and_loses_it_again_yields_and_later_tries_once_more():
    newcomer = a_rivalry()
    newcomer.see(MODEL, "old/theirs", NOW)
    newcomer.wrote(MODEL, "old/theirs", NOW)
    words = newcomer.see(MODEL, "old/theirs", NOW + ALIVE / 2)
    assert words.startswith("the controller old/theirs writes this status too, and has it; home/ours writes it no more")
    assert "--controller-class" in words
    assert newcomer.yields_until(MODEL, NOW + ALIVE / 2) == NOW + ALIVE / 2 + YIELDS
    assert newcomer.yielded(NOW + ALIVE / 2) == 1
    # What it writes meanwhile is no news.
    assert newcomer.see(MODEL, "old/theirs", NOW + ALIVE) == ""
    assert newcomer.yields_until(MODEL, NOW + ALIVE / 2 + YIELDS) is None


def test_who_was_there_first_takes_it_back_once_and_goes_on():
    first = a_rivalry()
    first.see(MODEL, "home/ours", NOW)
    words = first.see(MODEL, "new/theirs", NOW)
    assert words.startswith("the controller new/theirs writes this status too; home/ours takes it back once")
    assert first.yields_until(MODEL, NOW) is None
    first.wrote(MODEL, "new/theirs", NOW)
    # The newcomer yielded, and tries again.
    later = NOW + YIELDS
    assert "takes it back once" in first.see(MODEL, "new/theirs", later)
    assert first.yields_until(MODEL, later) is None


def test_to_who_does_not_yield_we_do():
    first = a_rivalry()
    first.see(MODEL, "home/ours", NOW)
    first.see(MODEL, "new/theirs", NOW)
    first.wrote(MODEL, "new/theirs", NOW)
    assert "writes it no more" in first.see(MODEL, "new/theirs", NOW)
    assert first.yields_until(MODEL, NOW) == NOW + YIELDS


def test_of_two_controllers_that_follow_the_rule_each_writes_once():
    status, writes = "a/first", 0
    rivals = {own: a_rivalry(own=own) for own in ("a/first", "b/second")}
    for _ in range(20):
        for own, one in rivals.items():
            one.see(MODEL, status, NOW)
            if status != own and not one.yields_until(MODEL, NOW):
                one.wrote(MODEL, status, NOW)
                status, writes = own, writes + 1
    assert (status, writes) == ("a/first", 2)


def test_a_clock_that_is_set_back_ends_the_rest():
    rivals = a_rivalry()
    rivals.see(MODEL, "old/theirs", NOW)
    rivals.wrote(MODEL, "old/theirs", NOW)
    rivals.see(MODEL, "old/theirs", NOW)
    assert rivals.yields_until(MODEL, NOW - YIELDS) is None


def test_an_object_that_is_gone_is_forgotten():
    rivals = a_rivalry()
    rivals.see(MODEL, "old/theirs", NOW)
    rivals.wrote(MODEL, "old/theirs", NOW)
    rivals.see(MODEL, "old/theirs", NOW)
    rivals.forget(MODEL)
    assert rivals.yields_until(MODEL, NOW) is None
    assert rivals.yielded(NOW) == 0


def test_where_nobody_else_writes_there_is_no_rival():
    rivals = a_rivalry(own="")
    rivals.wrote(MODEL, "old/theirs", NOW)
    assert rivals.see(MODEL, "old/theirs", NOW) == ""
