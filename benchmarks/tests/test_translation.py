"""The verdicts of the benchmark, and that it runs."""

import pytest
from click.testing import CliRunner

from benchmarks.translation import CHANGES, NEW, Cost, Row, main, verdicts

FAST = Cost(translate=0.001, snapshot=0.0001, envoy=0.0001, betterproto2=0.010)


def rows(**more):
    return [
        Row(10, NEW, FAST),
        Row(1000, NEW, Cost(**{**{name: getattr(FAST, name) for name in Cost.__slots__}, **more})),
    ]


@pytest.mark.parametrize(
    ("more", "met"),
    [
        ({}, [True, True]),
        ({"betterproto2": 0.004}, [False, True]),
        ({"envoy": 0.001}, [True, False]),
        ({"translate": 0.0025}, [False, False]),
    ],
)
def test_a_goal_is_missed_by_what_is_slow_or_grows(more, met):
    assert [good for good, _ in verdicts(rows(**more))] == met


@pytest.mark.long
def test_it_measures_each_change_with_so_many_models():
    result = CliRunner().invoke(main, ["--models", "2", "--models", "3", "--rounds", "3"])
    assert result.exit_code in (0, 1), result.output
    for models in (2, 3):
        for change in CHANGES:
            assert f"{models}  {change.name}" in result.output
