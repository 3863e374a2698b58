"""What a server had in flight, and what it had begun, can be read, also when it was killed."""

from contextlib import closing

import pytest

from demo.journal import Journal, begun_at, end_journal, flight_of, in_flight_now, read_journal, spans_of, unfinished


def test_nobody_has_begun(tmp_path):
    assert read_journal(tmp_path / "a") == ()
    assert in_flight_now(tmp_path / "a") == 0


def test_what_is_in_flight(tmp_path):
    path = tmp_path / "a"
    with closing(Journal(path)) as journal, journal.answering("one"), journal.answering("other"):
        assert in_flight_now(path) == 2
    steps = flight_of(read_journal(path))
    assert [step.number for step in steps] == [0, 1, 2, 1, 0]
    assert list(steps) == sorted(steps, key=lambda step: step.at)
    assert begun_at(read_journal(path)) == (steps[1].at, steps[2].at)
    assert in_flight_now(path) == 0


def test_an_answer_is_unfinished_until_its_end_is_sent_though_its_place_is_free(tmp_path):
    path = tmp_path / "a"
    with closing(Journal(path)) as journal:
        with journal.answering("other"), journal.answering("one") as free:
            assert unfinished(read_journal(path)) == {"one", "other"}
            free()
            assert in_flight_now(path) == 1
            assert unfinished(read_journal(path)) == {"one", "other"}
        assert in_flight_now(path) == 0
        assert unfinished(read_journal(path)) == set()


def test_an_answer_that_was_given_up_is_not_unfinished(tmp_path):
    path = tmp_path / "a"
    with closing(Journal(path)) as journal:
        with pytest.raises(ConnectionError), journal.answering("one"):
            raise ConnectionError
        assert unfinished(read_journal(path)) == set()
        assert in_flight_now(path) == 0


def test_a_server_that_was_killed_has_nothing(tmp_path):
    path = tmp_path / "a"
    with closing(Journal(path)) as journal, journal.answering("one"):
        before = read_journal(path)[-1]
        end_journal(path, before.at + 1)
        assert [step.number for step in flight_of(read_journal(path))] == [0, 1, 0]
        assert unfinished(read_journal(path)) == {"one"}
    with closing(Journal(path)):
        assert in_flight_now(path) == 0
        assert unfinished(read_journal(path)) == set()


def test_from_when_to_when_each_answer_was_in_flight(tmp_path):
    path = tmp_path / "a"
    with closing(Journal(path)) as journal:
        with journal.answering("free") as free:
            free()
        with journal.answering("whole"), journal.answering("killed"):
            moments = [one.at for one in read_journal(path)]
            end_journal(path, moments[-1] + 1)
            spans = spans_of(read_journal(path))
    assert spans["free"] == (moments[1], moments[2])
    assert spans["whole"] == (moments[4], moments[-1] + 1)
    assert spans["killed"] == (moments[5], moments[-1] + 1)
