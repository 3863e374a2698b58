"""What is done at a time: no share has all of it, and what waits for its share goes on once there is room."""

from controller.runtime.slots import Slots


def share_of(key):
    return key[0]


def test_a_share_that_has_its_slots_leaves_those_of_others():
    slots = Slots(3, 2, share_of)
    slots.begin("a1")
    slots.begin("a2")
    assert (slots.has_room("a3"), slots.has_room("b1"), slots.is_full) == (False, True, False)
    slots.begin("b1")
    assert (slots.is_full, slots.has_room("b2"), slots.has_room("c1")) == (True, False, False)


def test_who_waits_goes_once_there_is_room_for_its_share_the_first_first_and_each_once():
    slots = Slots(3, 1, share_of)
    slots.begin("a1")
    for key in ("a2", "a3", "a2"):
        slots.wait(key)
    assert slots.next_beside("a1") is None
    slots.end("a1")
    assert [slots.next_beside(key) for key in ("b1", "a1", "a1", "a1")] == [None, "a2", "a3", None]
