"""Which events are written, when, and how often."""

from datetime import UTC, datetime, timedelta

import pytest

from controller.api.timing import EventTiming
from controller.runtime.events import EventCorrelator
from controller.store.events import Event
from controller.store.objects import ObjectRef

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def after(**time):
    return NOON + timedelta(**time)


def an_event(message="20 of 20 requests", reason="SplitChanged", at=NOON, name="a", uid="u"):
    return Event(ObjectRef("ModelDeployment", "default", name), uid, "Normal", reason, message, at)


class Told:
    """A correlator that is told of events, and what was written of them."""

    def __init__(self):
        self.correlator = EventCorrelator(EventTiming())
        self.dropped = 0

    def say(self, event):
        self.dropped += self.correlator.add(event, event.at)

    def written(self, now):
        """Write everything that is due; say what it was."""
        writes = []
        while write := self.correlator.next_write(now):
            self.correlator.on_success(write, now)
            writes.append(("new" if write.new else "again", write.series.first.message, write.series.count))
        return writes


def test_a_new_event_is_written_at_once():
    told = Told()
    told.say(an_event("one"))
    assert told.written(NOON) == [("new", "one", 1)]
    assert told.correlator.due_at() is None


def test_what_happens_again_is_counted_and_written_every_ten_seconds_at_most():
    told = Told()
    told.say(an_event("one"))
    told.written(NOON)
    for second in (1, 2, 3):
        told.say(an_event("one", at=after(seconds=second)))
    assert told.written(after(seconds=9)) == []
    assert told.correlator.due_at() == after(seconds=10)
    assert told.written(after(seconds=10)) == [("again", "one", 4)]
    told.say(an_event("one", at=after(minutes=3)))
    assert told.written(after(minutes=3)) == [("again", "one", 5)]


def test_what_happens_again_later_than_ten_minutes_is_new():
    told = Told()
    told.say(an_event("one"))
    first = told.correlator.next_write(NOON)
    told.correlator.on_success(first, NOON)
    told.say(an_event("one", at=after(minutes=10, seconds=1)))
    second = told.correlator.next_write(after(minutes=11))
    assert (second.new, second.series.count) == (True, 1)
    assert second.series.name != first.series.name


def test_what_goes_on_for_hours_stays_one_event():
    told = Told()
    for minute in range(0, 180, 6):
        told.say(an_event("one", at=after(minutes=minute)))
        told.written(after(minutes=minute))
    assert told.correlator.next_write(after(minutes=180)) is None
    told.say(an_event("one", at=after(minutes=180)))
    assert told.written(after(minutes=190)) == [("again", "one", 31)]


def test_events_of_other_objects_reasons_and_messages_are_others():
    told = Told()
    for event in (an_event(), an_event(reason="Ready"), an_event("else"), an_event(name="b"), an_event(uid="v")):
        told.say(event)
    writes = told.written(NOON)
    assert [count for _, _, count in writes] == [1] * 5


def test_no_two_events_have_one_name_and_each_begins_with_its_objects():
    told = Told()
    for message in ("one", "two"):
        told.say(an_event(message, name="a." + "x" * 250))
    names = set()
    while write := told.correlator.next_write(NOON):
        told.correlator.on_success(write, NOON)
        names.add(write.series.name)
    assert len(names) == 2
    assert all(name.startswith("a.xxx") and len(name) <= 253 for name in names)


def test_many_similar_events_are_combined():
    told = Told()
    for second in range(40):
        told.say(an_event(f"{second} of 40 requests", at=after(seconds=second)))
    writes = told.written(after(seconds=40))
    assert writes[:10] == [("new", f"{second} of 40 requests", 1) for second in range(10)]
    assert writes[10:] == [("new", "(combined from similar events): 10 of 40 requests", 30)]
    assert told.dropped == 0


def test_what_was_said_on_its_own_before_is_still_counted_on_its_own():
    told = Told()
    for second in range(12):
        told.say(an_event(f"{second}", at=after(seconds=second)))
    told.written(after(seconds=20))
    told.say(an_event("3", at=after(seconds=30)))
    assert told.written(after(seconds=30)) == [("again", "3", 2)]


def test_similar_events_are_combined_until_it_was_quiet_for_ten_minutes():
    told = Told()
    for minute in range(30):
        told.say(an_event(f"{minute}", at=after(minutes=minute)))
        told.written(after(minutes=minute))
    told.say(an_event("30", at=after(minutes=30)))
    ((kind, message, count),) = told.written(after(minutes=31))
    assert (kind, message, count) == ("again", "(combined from similar events): 10", 21)
    told.say(an_event("later", at=after(minutes=41)))
    assert told.written(after(minutes=41)) == [("new", "later", 1)]


def test_one_object_gets_25_writes_at_once_and_one_more_every_five_minutes():
    told = Told()
    for number in range(30):
        told.say(an_event("x", reason=f"Reason{number}"))
    assert len(told.written(NOON)) == 25
    assert told.dropped == 5
    told.say(an_event("x", reason="Late", at=after(minutes=4, seconds=59)))
    assert (told.dropped, told.written(after(minutes=4, seconds=59))) == (6, [])
    for reason in ("InTime", "TooMuch"):
        told.say(an_event("x", reason=reason, at=after(minutes=5)))
    assert (told.dropped, len(told.written(after(minutes=5)))) == (7, 1)


def test_who_tells_too_much_takes_nothing_from_others():
    told = Told()
    for number in range(30):
        told.say(an_event("x", reason=f"Reason{number}"))
    told.say(an_event("x", name="b"))
    assert len(told.written(NOON)) == 26


def test_what_goes_on_and_on_leaves_writes_to_what_was_not_told_lately():
    told = Told()
    for minute in range(600):
        now = after(minutes=minute)
        reason, message = ("AsDecided", "again") if minute % 2 else ("Overflow", f"{minute} of 81 requests")
        told.say(an_event(message, reason, at=now))
        told.written(now)
    assert told.dropped > 0, "its writes are used up"
    dropped, now = told.dropped, after(minutes=600)
    for number in range(5):
        told.say(an_event(f"{number}", reason=f"New{number}", at=now))
    assert (told.dropped, told.written(now)) == (dropped, [("new", f"{number}", 1) for number in range(5)])


def test_a_count_waits_for_a_token_and_loses_nothing():
    told = Told()
    for number in range(25):
        told.say(an_event("x", reason=f"Reason{number}"))
    told.written(NOON)
    for second in range(60):
        told.say(an_event("x", reason="Reason0", at=after(seconds=second)))
    assert told.written(after(seconds=10)) == []
    assert told.dropped == 0
    assert told.written(after(minutes=25, seconds=10)) == []
    assert told.written(after(minutes=30, seconds=10)) == [("again", "x", 61)]


def test_what_happens_while_it_is_written_is_written_later():
    told = Told()
    told.say(an_event("one"))
    write = told.correlator.next_write(NOON)
    told.say(an_event("one", at=after(seconds=1)))
    told.correlator.on_success(write, after(seconds=2))
    assert told.written(after(seconds=3)) == []
    assert told.written(after(seconds=12)) == [("again", "one", 2)]


def test_a_failed_write_is_tried_again_later_and_later_and_then_given_up():
    told = Told()
    told.say(an_event("one"))
    told.say(an_event("one"))
    at, waits = NOON, []
    while write := told.correlator.next_write(at):
        lost = told.correlator.on_failure(write, at, for_good=False)
        waits.append((told.correlator.due_at() or at) - at)
        at = told.correlator.due_at() or at
    assert [wait.total_seconds() for wait in waits] == [2, 4, 8, 16, 0]
    assert lost == 2
    assert told.correlator.due_at() is None


def test_what_is_refused_for_good_is_given_up_at_once():
    told = Told()
    told.say(an_event("one"))
    assert told.correlator.on_failure(told.correlator.next_write(NOON), NOON, for_good=True) == 1
    assert told.correlator.due_at() is None


def test_an_event_that_is_gone_is_written_anew_with_all_it_counted():
    told = Told()
    told.say(an_event("one"))
    told.written(NOON)
    told.say(an_event("one", at=after(minutes=1)))
    told.correlator.on_expired(told.correlator.next_write(after(minutes=1)), after(minutes=1))
    assert told.written(after(minutes=1)) == [("new", "one", 2)]


def test_in_a_hurry_everything_is_written():
    told = Told()
    told.say(an_event("one"))
    told.written(NOON)
    told.say(an_event("one"))
    assert told.correlator.next_write(NOON) is None
    assert told.correlator.next_write(NOON, hurry=True).series.count == 2


def a_count_that_waits_for_a_token():
    """One who told what is told of a model that flapped, of which four events of one series are not written."""
    told = Told()
    for number in range(25):
        told.say(an_event("x", reason=f"Reason{number}"))
    told.written(NOON)
    for second in range(1, 5):
        told.say(an_event("x", reason="Reason0", at=after(seconds=second)))
    assert told.written(after(seconds=10)) == []
    return told


def test_a_count_that_waits_for_a_token_keeps_nothing_written_from_being_forgotten():
    told = a_count_that_waits_for_a_token()
    for number in range(4096):
        told.say(an_event("x", name=f"m{number}", at=after(seconds=11)))
        told.written(after(seconds=11))
    assert told.dropped == 0
    told.say(an_event("x", name="other", at=after(seconds=12)))
    assert told.written(after(seconds=12)) == [("new", "x", 1)]
    assert told.written(after(minutes=40)) == [("again", "x", 5)]


def test_a_count_that_waits_for_a_token_makes_room_for_what_can_be_written_and_is_told_as_lost():
    told = a_count_that_waits_for_a_token()
    for number in range(4096):
        told.say(an_event("x", name=f"m{number}", at=after(seconds=11)))
    assert told.dropped == 4
    assert len(told.written(after(seconds=11))) == 4096


@pytest.mark.long
def test_too_much_that_is_unwritten_is_dropped_and_memory_stays_bounded():
    told = Told()
    for number in range(5000):
        told.say(an_event("x", name=f"m{number}"))
    assert told.dropped == 5000 - 4096
    assert len(told.written(NOON)) == 4096
    for number in range(5000):
        told.say(an_event("y", name=f"n{number}", at=after(seconds=1)))
    assert told.dropped == 2 * (5000 - 4096), "what is written makes room"
