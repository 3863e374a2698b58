import time

import pytest

from xds_server.stream.protocol.parts import at_once
from xds_server.stream.protocol.rejections import find_names, halves


def names_in(message, names):
    return at_once(find_names(message, names))


@pytest.mark.parametrize(
    ("message", "found"),
    [
        ("Error adding/updating listener(s) ns/a: cannot bind '127.0.0.1:80'", {"ns/a"}),
        ("error: 'ns/a', \"ns/b\".", {"ns/a", "ns/b"}),
        ("listener remote/ns/a is bad", set()),
        ("listener ns/a.b is bad", set()),
        ("listener ns/ab or ns/a-b is bad", set()),
        ("nothing said", set()),
        ("ns/a", {"ns/a"}),
    ],
)
def test_names_are_found_as_whole_tokens(message, found):
    assert names_in(message, ["ns/a", "ns/b"]) == found


def test_a_text_that_has_each_of_a_thousand_names_thousands_of_times_costs_little_more_than_one_that_has_none():
    names = ["a" * length for length in range(1, 1001)]

    def cost(message):
        seconds = []
        for _ in range(3):
            begin = time.thread_time()
            found = names_in(message, names)
            seconds.append(time.thread_time() - begin)
        return found, min(seconds)

    (none, control), (no_word, hostile) = cost("no " * 1365), cost("a" * 4095)
    assert (none, no_word) == (set(), set())
    assert hostile < 100 * control
    assert names_in("a" * 4000 + " aa", names[1:2]) == {"aa"}


def test_halves_leave_nothing_out_and_nothing_empty():
    assert halves("abc") == ({"a"}, {"b", "c"})
    assert halves("a") == ({"a"},)
