"""What is said of several metrics in one sentence."""

from controller.decision.facts import listed


def test_few_are_all_named():
    assert listed(["a", "b", "c"]) == "a; b; c"
    assert listed(["a"], ", ") == "a"
    assert listed([]) == ""


def test_of_many_as_many_as_fit_and_how_many_more_there_are():
    assert listed(["x" * 300] * 5) == "; ".join(["x" * 300] * 3) + "; and 2 more"
    assert listed(["x" * 300] * 5, ", ").endswith("x, and 2 more")


def test_one_that_is_too_long_alone_is_cut():
    assert listed(["x" * 5_000, "y"]) == "x" * 997 + "...; and 1 more"
