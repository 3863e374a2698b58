"""When many keys of a namespace are asked for as one, and when each by itself."""

from __future__ import annotations

import pytest

from controller.decision import Cause
from controller.signals.together import FROM, Together

REST = 30.0


def of(number: int) -> Together[int]:
    return Together(REST, dict.fromkeys(range(number)))


def test_few_are_asked_for_one_by_one() -> None:
    assert not of(FROM - 1).takes(0, 0.0)
    assert of(FROM).takes(0, 0.0)


def test_one_that_is_new_while_the_others_were_just_asked_for_is_asked_for_alone() -> None:
    share = of(FROM)
    assert share.takes(0, 0.0)
    assert share.begin(5.0) == set(range(FROM))
    share.keys[FROM] = None
    assert not share.takes(FROM, 1.0)
    assert share.takes(FROM, 5.0)


def test_what_every_question_meets_is_the_failure_of_each_key() -> None:
    share = of(FROM)
    for now in range(10):
        assert share.fail(Cause.NO_SOURCE, float(now))
        assert share.takes(0, float(now))


@pytest.mark.parametrize(
    "cause", [Cause.NOT_USABLE, Cause.NOT_PERMITTED, Cause.INVALID, Cause.NO_SUCH_METRIC, Cause.NOT_MEASURED]
)
def test_an_answer_that_cannot_be_used_or_may_not_be_asked_for_has_each_asked_for_by_itself(cause: Cause) -> None:
    share = of(FROM)
    assert not share.fail(cause, 0.0)
    assert share.alone == share.keys.keys()
    assert not any(share.takes(key, REST) for key in share.keys)
    # Each was asked for once, and it is time again.
    assert share.takes(0, REST)


def test_the_third_time_without_an_answer_in_a_row_may_be_due_to_how_much_was_asked_for() -> None:
    share = of(FROM)
    assert [share.fail(Cause.NOT_ANSWERING, 0.0) for _ in range(2)] == [True, True]
    share.succeed(without=frozenset())
    assert [share.fail(Cause.NOT_ANSWERING, 0.0) for _ in range(3)] == [True, True, False]


def test_a_rest_is_twice_as_long_each_time_and_never_without_an_end() -> None:
    share, rests = of(FROM), []
    for _ in range(8):
        share.fail(Cause.NOT_USABLE, 0.0)
        rests.append(share.next_at)
    assert rests == [30.0, 60.0, 120.0, 240.0, *[480.0] * 4]
    share.succeed(without=frozenset())
    share.fail(Cause.NOT_USABLE, 0.0)
    assert share.next_at == REST


def test_what_was_too_much_for_few_is_tried_again_for_twice_as_many() -> None:
    share = of(FROM)
    share.fail(Cause.NOT_USABLE, 0.0)
    share.alone.clear()
    share.keys.update(dict.fromkeys(range(2 * FROM - 1)))
    assert not share.takes(0, 1.0)
    share.keys[2 * FROM] = None
    assert share.takes(0, 1.0)
    share.begin(5.0)
    assert not share.takes(0, 1.0)


def test_a_clock_that_is_set_back_ends_a_rest() -> None:
    share = of(FROM)
    share.begin(1e9)
    assert share.takes(0, 1e6)


def test_what_is_forgotten_is_in_no_question() -> None:
    share = of(FROM)
    share.succeed(without={0, FROM + 1})
    assert share.alone == {0}
    share.forget(0)
    assert 0 not in share.keys.keys() | share.alone
