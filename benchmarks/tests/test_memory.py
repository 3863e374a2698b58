"""The judgement on what a model weighs."""

import pytest

from benchmarks.memory import ALL, OURS, Weight, verdicts


@pytest.mark.parametrize(
    ("ours", "everything", "goals"),
    [(0.29, 0.48, [True, True]), (0.31, 0.48, [False, True]), (0.29, 0.3, [True, False])],
)
def test_a_model_is_light_and_lighter_than_with_everything(ours, everything, goals):
    weights = {OURS: Weight(ours * 1e6, 0, 0), ALL: Weight(everything * 1e6, 0, 0)}
    assert [good for good, _ in verdicts(weights)] == goals


def test_a_weight_is_what_each_model_added():
    few, many = Weight(10, 100, 5), Weight(30, 200, 45)
    assert many.per_model_since(few, 10) == Weight(2, 10, 4)
