"""How many clients there are at a moment of a wave, and the line that says what they got."""

from __future__ import annotations

from demo.waves import Tally, Wave


def test_a_wave_goes_from_the_fewest_to_the_most_and_back():
    wave = Wave(least=4, most=24, period=120.0)
    assert [wave.clients(seconds) for seconds in (0, 60, 120, 180)] == [4, 24, 4, 24]
    rising = [wave.clients(seconds) for seconds in range(0, 61, 5)]
    assert rising == sorted(rising)


def test_a_line_says_who_answered_and_what_went_wrong_since_the_last_one():
    tally = Tally()
    for became in ("local", "local", "remote", "status 503", "TimeoutError", "status 503"):
        tally.add(became)
    assert tally.tell(7) == "  7 clients     2 local     1 remote  failed: 1 x TimeoutError, 2 x status 503"
    assert tally.tell(4) == "  4 clients     0 local     0 remote  failed: 0"
