"""What the demo prints fits a terminal and does not flatter."""

import math

import pytest

from benchmarks.load import Summary
from demo.console import milliseconds, percent, second_line


def test_one_second_of_load():
    line = second_line(12, Summary(200, 150, 50, 0, 0.0271, 0.1544), "100/0 Steady")
    assert line.split() == ["12", "s", "200", "75", "%", "25", "%", "0", "27", "ms", "154", "ms", "100/0", "Steady"]
    assert len(line) <= 80


def test_a_second_without_requests():
    assert second_line(5, Summary(0, 0, 0, 0, math.nan, math.nan), "").split() == [
        "5",
        "s",
        "0",
        "-",
        "-",
        "0",
        "-",
        "-",
    ]


@pytest.mark.parametrize(
    ("share", "text"), [(0.0, "0 %"), (0.001, "1 %"), (0.5, "50 %"), (0.999, "99 %"), (1.0, "100 %"), (math.nan, "-")]
)
def test_only_all_is_all_and_only_none_is_none(share, text):
    assert percent(share) == text


def test_no_latency():
    assert milliseconds(math.nan) == "-"
