"""Traces are replayed as they were, only faster."""

from collections import Counter

import pytest

from tests.support.load.trace import (
    TracedRequest,
    azure_code_trace,
    azure_conversation_trace,
    parse_trace,
    replay,
    window,
)

TRACE = tuple(TracedRequest(float(second), 100, second) for second in (0, 1, 2, 4, 8, 16))


def test_a_line_is_a_request():
    assert parse_trace("milliseconds,context,generated\n0,4808,10\n1500,3180,8\n") == (
        TracedRequest(0.0, 4808, 10),
        TracedRequest(1.5, 3180, 8),
    )


@pytest.mark.parametrize("lines", ["0,1\n", "0,1,x\n", "5,1,1\n4,1,1\n"])
def test_a_bad_line_is_refused(lines):
    with pytest.raises(ValueError):
        parse_trace("titles\n" + lines)


def test_a_stretch_is_moved_to_zero_and_compressed():
    assert [request.at for request in replay(TRACE, 0.0, 6, 4.0)] == [0.0, 0.25, 0.5, 1.0, 2.0, 4.0]
    assert [request.at for request in replay(TRACE, 2.0, 3, 7.0)] == [0.0, 1.0, 3.0]
    assert [request.generated_tokens for request in replay(TRACE, 1.5, 3, 1.0)] == [2, 4, 8]


def test_a_stretch_beyond_the_end_is_refused():
    with pytest.raises(ValueError, match="has 2 requests"):
        replay(TRACE, 5.0, 3, 1.0)
    with pytest.raises(ValueError):
        replay(TRACE, 0.0, 0, 1.0)


def test_one_request_arrives_at_once():
    assert [request.at for request in replay(TRACE, 8.0, 1, 1.0)] == [0.0]


def test_a_window_keeps_its_pauses():
    assert [request.at for request in window(TRACE, 3.0, 6.0, 2.0)] == [0.5, 2.5]
    assert [request.at for request in window(TRACE, 4.0, 4.0, 1.0)] == [0.0]
    assert window(TRACE, 9.0, 5.0, 1.0) == ()


@pytest.mark.parametrize(
    ("trace", "rows", "first", "busiest"),
    [
        (azure_code_trace, 8_819, TracedRequest(0.0, 4808, 10), 67),
        (azure_conversation_trace, 19_366, TracedRequest(0.0, 374, 44), 16),
    ],
)
def test_the_azure_traces_are_whole(trace, rows, first, busiest):
    requests = trace()
    assert (len(requests), requests[0]) == (rows, first)
    seconds = Counter(int(request.at) for request in requests)
    assert max(seconds.values()) == busiest
