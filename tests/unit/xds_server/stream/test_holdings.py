"""What a client has knows what it requires, whatever comes, changes and goes."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st
from scripted import cluster, listener, route

from xds_server.snapshot.snapshot import CLUSTER, ENDPOINT, ResourceKey
from xds_server.stream.protocol.holdings import Held, Holdings

contents = st.sampled_from(
    [route("r", "a"), route("r", "a", "b"), route("r", "c", content="2"), route("r"), listener("l"), cluster("a")]
)
held = st.builds(
    Held, st.sampled_from(["", "1"]), st.one_of(st.none(), contents), st.lists(contents, max_size=2).map(tuple)
)
steps = st.lists(st.tuples(st.sampled_from("xyz"), st.one_of(st.none(), held)), max_size=20)
KEYS = [ResourceKey(type_url, name) for type_url in (CLUSTER, ENDPOINT) for name in "abcd"]


@given(steps)
def test_it_knows_what_is_required_as_one_who_looks_through_all_of_it(taken):
    holdings, expected = Holdings(), {}
    for name, one in taken:
        if one is None:
            holdings.pop(name, None)
            expected.pop(name, None)
        else:
            holdings[name] = expected[name] = one
        required = Counter(key for held in expected.values() for one in held.contents for key in one.requires)
        assert [key in holdings.required for key in KEYS] == [key in required for key in KEYS]
        assert holdings.has_unknown == any(held.unknown for held in expected.values())
        assert dict(holdings) == expected
        assert len(holdings) == len(expected)
