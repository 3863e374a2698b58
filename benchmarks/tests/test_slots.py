"""What arrived is judged alike, however it is cut."""

import pytest

from benchmarks.proxies.slots import Outcome, Slot, outcome_of

GOOD = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nserver: envoy\r\n\r\nremote"


def test_a_good_answer_says_who_gave_it():
    assert outcome_of(GOOD) is Outcome.REMOTE
    assert outcome_of(GOOD.replace(b"6", b"5").replace(b"remote", b"local")) is Outcome.LOCAL


@pytest.mark.parametrize("length", range(1, len(GOOD)))
def test_a_part_of_an_answer_is_none_yet(length):
    assert outcome_of(GOOD[:length]) is Outcome.INCOMPLETE


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 5\r\n\r\nlocal",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nother",
        b"not HTTP\r\n\r\n",
    ],
)
def test_anything_else_is_a_failure(data):
    assert outcome_of(data) is Outcome.FAILED


def test_a_slot_tells_cost_and_rate():
    slot = Slot(requests=1000, remote=0, failed=0, cpu_seconds=0.05, seconds=0.1)
    assert slot.cpu_per_request == pytest.approx(50e-6)
    assert slot.rate == pytest.approx(10_000)
