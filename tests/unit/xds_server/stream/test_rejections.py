import pytest

from xds_server.stream.protocol.ledger import halves, names_in


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


def test_halves_leave_nothing_out_and_nothing_empty():
    assert halves("abc") == ({"a"}, {"b", "c"})
    assert halves("a") == ({"a"},)
