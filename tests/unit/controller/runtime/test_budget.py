"""The write budget: who may write now, and that nobody is starved."""

from collections import Counter
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from controller.api.timing import Limits, RateLimit
from controller.runtime.budget import TokenBucket, Urgency, WriteBudget

NOW = datetime(2026, 1, 1, tzinfo=UTC)
SECOND = timedelta(seconds=1)
ROOMY = Limits(at_once=10_000)


def seconds(number: float) -> datetime:
    return NOW + timedelta(seconds=number)


def test_a_bucket_gives_its_burst_and_then_its_rate():
    bucket = TokenBucket(RateLimit(10, 3))
    assert [bucket.take(NOW) for _ in range(4)] == [True, True, True, False]
    assert not bucket.take(seconds(0.09))
    assert bucket.next_at(seconds(0.09)) > seconds(0.09)
    assert bucket.take(bucket.next_at(seconds(0.09)))


def test_a_bucket_whose_clock_is_set_back_goes_on():
    bucket = TokenBucket(RateLimit(1, 1))
    assert bucket.take(NOW)
    assert not bucket.take(seconds(-3600))
    assert bucket.take(seconds(-3599))


@given(st.lists(st.floats(0, 0.3), max_size=200), st.integers(1, 5), st.integers(1, 50))
def test_no_stretch_of_time_has_more_than_the_burst_and_the_rate(pauses, burst, rate):
    bucket, now, taken = TokenBucket(RateLimit(rate, burst)), 0.0, []
    for pause in pauses:
        now += pause
        if bucket.take(seconds(now)):
            taken.append(now)
    for first, start in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= burst + rate * (taken[last] - start) + 1e-3


def writing(budget: WriteBudget[str], model: str, urgency: Urgency, now: datetime) -> bool:
    """Ask, and if it may, write in no time."""
    may = budget.not_before(model, urgency, now) <= now and budget.try_acquire(model, urgency, now)
    if may:
        budget.release(model)
    return may


def test_a_thousand_models_at_once_write_fifty_a_second_after_a_burst_of_a_hundred():
    budget: WriteBudget[str] = WriteBudget(ROOMY)
    models = [f"m{number}" for number in range(1000)]
    assert sum(writing(budget, model, Urgency.WORDS, NOW) for model in models) == 100
    for second in (1, 2, 3):
        come = budget.grant_turns(seconds(second))
        assert len(come) in (50, 51)
        assert all(writing(budget, model, Urgency.WORDS, seconds(second)) for model in come)
    assert budget.waiting == 750


def test_turns_come_in_the_order_of_asking():
    budget: WriteBudget[str] = WriteBudget(Limits(others=RateLimit(1, 1)))
    assert writing(budget, "first", Urgency.WORDS, NOW)
    for model in ("a", "b", "c", "a"):
        assert not writing(budget, model, Urgency.WORDS, NOW)
    turns = [turn for second in range(1, 6) for turn in take_turn(budget, seconds(second))]
    assert turns == ["a", "b", "c"]


def take_turn(budget: WriteBudget[str], now: datetime) -> list[str]:
    come = budget.grant_turns(now)
    return [model for model in come if writing(budget, model, Urgency.WORDS, now)]


def test_a_namespace_of_which_thousands_wait_delays_another_one_by_a_few():
    budget: WriteBudget[str] = WriteBudget(Limits(others=RateLimit(1, 1)), share_of=lambda model: model[0])
    for number in range(5000):
        writing(budget, f"a{number}", Urgency.WORDS, NOW)
    writing(budget, "b", Urgency.WORDS, NOW)
    turns = [turn for second in range(1, 20) for turn in take_turn(budget, seconds(second))]
    assert turns.index("b") == 10


def test_a_newcomer_does_not_go_before_those_who_wait():
    budget: WriteBudget[str] = WriteBudget(Limits(others=RateLimit(1, 1)))
    writing(budget, "first", Urgency.WORDS, NOW)
    writing(budget, "waits", Urgency.WORDS, NOW)
    assert not writing(budget, "newcomer", Urgency.WORDS, seconds(1))
    assert budget.grant_turns(seconds(1)) == ["waits"]


def test_a_change_of_the_route_waits_for_no_other_write():
    budget: WriteBudget[str] = WriteBudget(Limits(others=RateLimit(1, 1)))
    writing(budget, "first", Urgency.WORDS, NOW)
    assert not writing(budget, "waits", Urgency.WORDS, NOW)
    assert writing(budget, "urgent", Urgency.ROUTE, NOW)
    assert writing(budget, "waits", Urgency.ROUTE, NOW)
    assert budget.waiting == 0


def test_changes_of_routes_have_a_bound_of_their_own():
    budget: WriteBudget[str] = WriteBudget(ROOMY)
    assert sum(writing(budget, f"m{number}", Urgency.ROUTE, NOW) for number in range(1000)) == 400
    assert budget.next_turn_at(NOW) < seconds(0.01)


def test_one_model_writes_its_words_once_a_second():
    budget: WriteBudget[str] = WriteBudget(ROOMY)
    written = [tenth for tenth in range(101) if writing(budget, "a", Urgency.WORDS, seconds(tenth / 10))]
    assert written == list(range(0, 101, 10))


def test_words_may_follow_a_route_at_once():
    budget: WriteBudget[str] = WriteBudget(ROOMY)
    assert writing(budget, "a", Urgency.ROUTE, NOW)
    assert writing(budget, "a", Urgency.WORDS, NOW)
    assert budget.not_before("a", Urgency.WORDS, NOW) == seconds(1)


def test_numbers_that_are_merely_newer_are_written_a_few_times_and_then_every_fifteen_seconds():
    budget: WriteBudget[str] = WriteBudget(ROOMY)
    assert writing(budget, "a", Urgency.WORDS, NOW)
    assert budget.not_before("a", Urgency.NUMBERS, NOW) == seconds(1)
    for second in (1, 2, 3, 4):
        assert writing(budget, "a", Urgency.NUMBERS, seconds(second))
    assert seconds(15) < budget.not_before("a", Urgency.NUMBERS, seconds(5)) <= seconds(16.001)
    assert budget.not_before("a", Urgency.WORDS, seconds(5)) == seconds(5)


def test_a_route_that_flaps_is_written_ten_times_a_second_at_most():
    budget: WriteBudget[str] = WriteBudget(ROOMY)
    written = sum(writing(budget, "a", Urgency.ROUTE, seconds(number / 100)) for number in range(1001))
    assert 100 <= written <= 111


def test_a_model_that_flaps_takes_nothing_from_the_others():
    budget: WriteBudget[str] = WriteBudget(Limits(others=RateLimit(10, 10), at_once=1000))
    models = [f"m{number}" for number in range(20)]
    written: Counter[str] = Counter()
    due = dict.fromkeys(models, NOW)
    for tick in range(6000):
        now = seconds(tick / 100)
        come = budget.grant_turns(now)
        flaps = ["flaps"] * 5
        for model in (*come, *flaps, *(model for model in models if due[model] <= now)):
            if writing(budget, model, Urgency.WORDS, now):
                written[model] += 1
                due[model] = now + 2 * SECOND
    assert written["flaps"] <= 61
    assert min(written[model] for model in models) >= 26


def test_so_many_at_once_and_some_of_them_for_routes_alone():
    budget: WriteBudget[str] = WriteBudget(Limits())
    assert sum(budget.try_acquire(f"w{number}", Urgency.WORDS, NOW) for number in range(10)) == 6
    assert sum(budget.try_acquire(f"r{number}", Urgency.ROUTE, NOW) for number in range(10)) == 2
    assert budget.next_turn_at(NOW) is None
    budget.release("w0")
    assert budget.grant_turns(NOW) == ["r2"]


def test_who_has_nothing_to_write_when_the_turn_comes_gives_it_to_the_next():
    budget: WriteBudget[str] = WriteBudget(Limits(others=RateLimit(1, 1)))
    for model in ("first", "a", "b"):
        writing(budget, model, Urgency.WORDS, NOW)
    assert budget.grant_turns(seconds(1)) == ["a"]
    budget.withdraw("a")
    assert budget.grant_turns(seconds(1)) == ["b"]


def test_who_has_another_wish_when_the_turn_comes_asks_anew():
    budget: WriteBudget[str] = WriteBudget(Limits(others=RateLimit(1, 1)))
    for model in ("first", "a", "b"):
        writing(budget, model, Urgency.WORDS, NOW)
    assert budget.grant_turns(seconds(1)) == ["a"]
    assert writing(budget, "a", Urgency.ROUTE, seconds(1))
    assert budget.grant_turns(seconds(1)) == ["b"]


def test_who_is_gone_holds_no_place():
    budget: WriteBudget[str] = WriteBudget(Limits(others=RateLimit(1, 1)))
    for model in ("first", "a", "b"):
        writing(budget, model, Urgency.WORDS, NOW)
    budget.forget("a")
    assert budget.grant_turns(seconds(1)) == ["b"]
