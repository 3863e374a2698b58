"""How many requests are in flight, from when each began and ended."""

from tests.support.load import Step, most, steps_of, sum_of

SPANS = [(1.0, 3.0), (2.0, 4.0), (4.0, 5.0)]


def test_spans_overlap():
    assert steps_of(SPANS) == ((1.0, 1), (2.0, 2), (3.0, 1), (4.0, 0), (4.0, 1), (5.0, 0))


def test_one_that_ends_as_another_begins_makes_room_for_it():
    assert most(steps_of([(1.0, 2.0), (2.0, 3.0)])) == 1


def test_the_most_of_a_while_includes_what_was_there_before():
    steps = steps_of(SPANS)
    assert most(steps) == 2
    assert most(steps, 2.5, 2.6) == 2
    assert most(steps, 3.0, 3.5) == 1
    assert most(steps, 6.0, 9.0) == most(steps, 0.0, 0.9) == most((), 0.0, 1.0) == 0


def test_several_flights_add_up():
    one, other = (Step(1.0, 1), Step(3.0, 0)), (Step(2.0, 4), Step(4.0, 0))
    assert sum_of([one, other]) == ((1.0, 1), (2.0, 5), (3.0, 4), (4.0, 0))
    assert sum_of([]) == ()
