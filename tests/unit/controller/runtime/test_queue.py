"""The work queue: what is due, once, in order."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from controller.runtime.queue import Backoff, Queue

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
RESTS = Backoff(first=SECOND, longest=timedelta(minutes=5))


def a_queue() -> Queue[str]:
    return Queue(RESTS, chance=lambda: 0.5)


def taken(queue: Queue[str], now: datetime = NOW) -> list[str]:
    """Everything that is due, each left in work."""
    keys = []
    while (key := queue.take(now)) is not None:
        keys.append(key)
    return keys


def test_a_key_is_in_it_once():
    queue = a_queue()
    for _ in range(3):
        queue.add("a")
    assert len(queue) == 1
    assert taken(queue) == ["a"]


def test_the_order_is_that_of_adding_and_what_is_urgent_goes_first():
    queue = a_queue()
    for key in ("a", "b"):
        queue.add(key, urgent=False)
    for key in ("c", "d", "b"):
        queue.add(key)
    assert taken(queue) == ["c", "d", "b", "a"]


def test_it_is_known_what_waits_and_whether_something_is_urgent():
    queue = a_queue()
    queue.add("a", urgent=False)
    assert queue.waits("a")
    assert not queue.hurries(NOW)
    queue.add_at("b", NOW + SECOND)
    assert not queue.waits("b")
    assert queue.hurries(NOW + SECOND)
    assert taken(queue, NOW + SECOND) == ["b", "a"]
    assert not queue.waits("a")


def test_what_was_urgent_once_stays_urgent():
    queue = a_queue()
    queue.add("b", urgent=False)
    queue.add("a")
    queue.add("a", urgent=False)
    assert taken(queue) == ["a", "b"]


def test_a_storm_of_what_is_urgent_delays_the_rest_and_does_not_stop_it():
    queue = a_queue()
    queue.add("patient", urgent=False)
    order = []
    for number in range(30):
        queue.add(f"urgent-{number}")
        queue.add(f"urgent-{number + 1000}")
        order.append(queue.take(NOW))
    assert order.index("patient") == 10


@pytest.mark.parametrize("urgent", [True, False])
def test_a_share_with_many_keys_delays_another_one_by_a_few(urgent):
    queue: Queue[str] = Queue(RESTS, chance=lambda: 0.5, share_of=lambda key: key[0])
    for number in range(1000):
        queue.add(f"a{number}", urgent=urgent)
    queue.add("b", urgent=urgent)
    assert taken(queue).index("b") == 10


def test_what_is_first_goes_before_all_that_is_due():
    queue = a_queue()
    for key in ("a", "b"):
        queue.add(key)
    queue.add("c", urgent=False)
    queue.add("c", first=True)
    assert (queue.is_empty, taken(queue), queue.is_empty) == (False, ["c", "a", "b"], True)


def test_a_key_in_work_that_is_added_again_is_worked_again_afterwards_and_never_by_two():
    queue = a_queue()
    queue.add("a")
    assert queue.take(NOW) == "a"
    queue.add("a")
    assert queue.take(NOW) is None
    queue.succeeded("a")
    assert queue.take(NOW) == "a"
    queue.succeeded("a")
    assert queue.take(NOW) is None


def test_what_was_added_in_work_as_urgent_is_urgent_afterwards():
    queue = a_queue()
    queue.add("a")
    queue.take(NOW)
    queue.add("a", urgent=False)
    queue.add("a")
    queue.add("b", urgent=False)
    queue.release("a")
    assert taken(queue) == ["a", "b"]


def test_a_key_wakes_at_the_earliest_of_its_moments():
    queue = a_queue()
    queue.add_at("a", NOW + 3 * SECOND)
    queue.add_at("a", NOW + 2 * SECOND)
    queue.add_at("a", NOW + 4 * SECOND)
    assert queue.wakes_at() == NOW + 2 * SECOND
    assert queue.take(NOW + SECOND) is None
    assert queue.take(NOW + 2 * SECOND) == "a"
    queue.succeeded("a")
    assert queue.wakes_at() is None
    assert taken(queue, NOW + 10 * SECOND) == []


def test_a_key_that_is_worked_before_its_moment_is_not_woken_for_it():
    queue = a_queue()
    queue.add_at("a", NOW + SECOND)
    queue.add("a")
    assert queue.take(NOW) == "a"
    queue.succeeded("a")
    assert queue.take(NOW + 2 * SECOND) is None


def test_a_moment_that_comes_while_the_key_is_in_work_counts_afterwards():
    queue = a_queue()
    queue.add("a")
    queue.take(NOW)
    queue.add_at("a", NOW + SECOND)
    assert queue.take(NOW + SECOND) is None
    queue.succeeded("a")
    assert queue.take(NOW + SECOND) == "a"


def test_a_key_that_fails_rests_twice_as_long_each_time_up_to_five_minutes():
    queue, now, rests = a_queue(), NOW, []
    queue.add("a")
    for _ in range(12):
        assert queue.take(now) == "a"
        at = queue.failed("a", now)
        assert queue.rests_until("a", now) == at
        assert queue.take(at - timedelta(milliseconds=1)) is None
        rests.append((at - now).total_seconds())
        now = at
    assert rests == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_success_makes_the_next_rest_short_again():
    queue = a_queue()
    for _ in range(5):
        queue.failed("a", NOW)
    queue.succeeded("a")
    assert queue.rests_until("a", NOW) is None
    assert queue.failed("a", NOW) == NOW + SECOND


def test_a_key_whose_next_work_is_another_one_rests_no_longer_and_shortly_after_the_next_failure():
    queue = a_queue()
    for _ in range(5):
        queue.failed("a", NOW)
    assert queue.rests_until("a", NOW)
    queue.forgive("a")
    assert queue.rests_until("a", NOW) is None
    assert queue.failed("a", NOW) == NOW + SECOND


def test_a_rest_may_have_a_bound_of_its_own():
    queue = a_queue()
    for _ in range(10):
        at = queue.failed("a", NOW, longest=15 * SECOND)
    assert at == NOW + 15 * SECOND


@pytest.mark.parametrize(("chance", "seconds"), [(0.0, 0.8), (1.0, 1.2)])
def test_rests_differ_so_that_not_all_return_at_once(chance, seconds):
    assert RESTS.after(1, chance) == timedelta(seconds=seconds)


def test_a_key_that_rests_may_be_looked_at_before():
    queue = a_queue()
    queue.failed("a", NOW)
    queue.add("a")
    assert queue.take(NOW) == "a"
    assert queue.rests_until("a", NOW) == NOW + SECOND


def test_a_clock_that_is_set_back_ends_every_wait():
    queue = a_queue()
    queue.take(NOW)
    queue.add_at("a", NOW + SECOND)
    queue.failed("b", NOW)
    assert sorted(taken(queue, NOW - timedelta(hours=1))) == ["a", "b"]
    assert queue.rests_until("b", NOW - timedelta(hours=1)) is None


def test_what_is_forgotten_neither_waits_nor_wakes():
    queue = a_queue()
    queue.add("a")
    queue.add_at("a", NOW + SECOND)
    queue.failed("a", NOW)
    queue.forget("a")
    assert taken(queue, NOW + timedelta(hours=1)) == []
    assert queue.failed("a", NOW) == NOW + SECOND


STEPS = st.tuples(st.sampled_from("abc"), st.sampled_from(("add", "later", "take", "succeed", "fail")))


@given(st.lists(STEPS, max_size=60))
def test_whatever_is_added_is_taken_and_never_by_two(steps):
    queue, now, working, owed = a_queue(), NOW, set(), set()
    for key, step in steps:
        now += SECOND
        if step == "add":
            queue.add(key)
            owed.add(key)
        elif step == "later":
            queue.add_at(key, now + SECOND)
            owed.add(key)
        elif step == "take" and (one := queue.take(now)) is not None:
            assert one not in working
            working.add(one)
            owed.discard(one)
        elif step in ("succeed", "fail") and key in working:
            working.discard(key)
            if step == "fail":
                queue.failed(key, now)
                owed.add(key)
            else:
                queue.succeeded(key)
    for key in working:
        queue.succeeded(key)
    assert set(taken(queue, now + timedelta(hours=1))) >= owed
