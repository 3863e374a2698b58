"""What the demo prints fits a terminal and does not flatter."""

import math

import pytest

from demo.console import milliseconds, percent, tick_line
from demo.outcome import Tally


def test_one_line_of_the_live_view():
    line = tick_line(12.5, Tally(200, 150, 49, 1, 0, 0.0271, 0.1544), "12/12", "100/0 Steady")
    assert line.split() == (
        ["12.5", "s", "200", "12/12", "75", "%", "25", "%", "1", "0", "27", "ms", "154", "ms", "100/0", "Steady"]
    )
    assert len(line) <= 100


def test_a_time_without_requests():
    line = tick_line(5.0, Tally(0, 0, 0, 0, 0, math.nan, math.nan), "0/12", "")
    assert line.split() == ["5.0", "s", "0", "0/12", "-", "-", "0", "0", "-", "-"]


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.001, "1 %"), (0.5, "50 %"), (0.999, "99 %"), (1.0, "100 %"), (math.nan, "-")]
)
def test_only_all_is_all_and_only_none_is_none(share, text):
    assert percent(share) == text


def test_no_latency():
    assert milliseconds(math.nan) == "-"
