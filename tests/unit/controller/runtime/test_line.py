"""Keys in line, in which shares take turns."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from controller.runtime.line import WaitingLine


def a_line() -> WaitingLine[str]:
    """Keys such as `a7`, of the share `a`."""
    return WaitingLine(share_of=lambda key: key[0])


def in_line(line: WaitingLine[str], *keys: str) -> WaitingLine[str]:
    for key in keys:
        line.add(key)
    return line


def taken(line: WaitingLine[str]) -> list[str]:
    keys = []
    while (key := line.take()) is not None:
        keys.append(key)
    return keys


def many(share: str, number: int) -> list[str]:
    return [f"{share}{each}" for each in range(number)]


def test_few_go_in_the_order_in_which_they_came_each_once():
    assert taken(in_line(a_line(), "a1", "b1", "a2", "a1", "c1")) == ["a1", "b1", "a2", "c1"]


def test_a_share_with_thousands_delays_one_of_another_by_ten():
    line = in_line(a_line(), *many("a", 5000), "b1")
    order = taken(line)
    assert order.index("b1") == 10
    assert [key for key in order if key[0] == "a"] == many("a", 5000)


def test_who_comes_later_waits_for_ten_of_each_share():
    line = in_line(a_line(), *many("a", 1000), *many("b", 1000))
    for _ in range(100):
        line.take()
    line.add("c1")
    assert taken(line).index("c1") <= 20


def test_who_is_first_goes_before_all_others():
    line = in_line(a_line(), *many("a", 30))
    line.add("a29", first=True)
    line.add("b1", first=True)
    order = taken(line)
    assert order[:2] == ["b1", "a29"]
    assert sorted(order) == sorted([*many("a", 30), "b1"])


def test_who_waits_no_longer_takes_no_place():
    line = in_line(a_line(), *many("a", 12))
    for key in (*many("a", 11), "b1"):
        line.discard(key)
    assert ("a11" in line, "a0" in line, len(line)) == (True, False, 1)
    line.add("a0")
    assert taken(line) == ["a11", "a0"]
    assert (bool(line), len(line), line.take()) == (False, 0, None)


KEYS = st.builds("{}{}".format, st.sampled_from("abc"), st.integers(0, 25))


@given(st.lists(st.tuples(KEYS, st.sampled_from(["add", "add", "first", "discard", "take"])), max_size=300))
def test_whatever_comes_and_goes_each_that_waits_is_taken_once(steps):
    line, waiting = a_line(), set()
    for key, step in steps:
        if step == "discard":
            line.discard(key)
            waiting.discard(key)
        elif step == "take":
            one = line.take()
            assert (one in waiting) if waiting else one is None
            waiting.discard(one)
        else:
            line.add(key, first=step == "first")
            waiting.add(key)
        assert (len(line), bool(line)) == (len(waiting), bool(waiting))
    assert Counter(taken(line)) == Counter(waiting)
