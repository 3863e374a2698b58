"""What a run of all tests comes to, and which tests it repeats."""

import pytest

from tests.__main__ import (
    AGAIN,
    COMPATIBILITY,
    INTERRUPTED,
    NO_TESTS,
    NODE_SUITE,
    TESTS_FAILED,
    Lane,
    Order,
    Run,
    lanes_of,
    left_out,
    summary,
    to_repeat,
    verdict_on,
)
from tests.support.progress import Record

PASSED = Record("tests/a/test_a.py::test_a")
FAILED = Record("tests/b/test_b.py::test_b", outcome="failed")
FAILED_TOO = Record("tests/c/test_c.py::test_c", outcome="failed")
FORGOTTEN = 3


def run(name: str, code: int, *records: Record, is_whole: bool = True) -> Run:
    return Run(Lane(name, ()), code, 1.0, records, is_whole)


@pytest.mark.parametrize(
    ("codes", "verdict"),
    [
        ((0, NO_TESTS), 0),
        ((NO_TESTS, NO_TESTS), NO_TESTS),
        ((TESTS_FAILED, 0), TESTS_FAILED),
        ((0, INTERRUPTED), TESTS_FAILED),
        ((FORGOTTEN, 0), FORGOTTEN),
    ],
)
def test_one_lane_that_failed_is_enough(codes, verdict):
    assert verdict_on(run(str(number), code) for number, code in enumerate(codes)) == verdict


@pytest.mark.parametrize(
    ("at_most", "repeated"), [(0, ()), (1, ()), (2, (FAILED.nodeid, FAILED_TOO.nodeid))], ids=["none", "one", "two"]
)
def test_no_more_are_repeated_than_was_asked_for(at_most, repeated):
    runs = (run("together", TESTS_FAILED, PASSED, FAILED), run("alone", TESTS_FAILED, FAILED_TOO))
    assert to_repeat(runs, at_most) == repeated


@pytest.mark.parametrize("code", [INTERRUPTED, FORGOTTEN])
def test_nothing_is_repeated_of_a_run_that_came_to_no_end(code):
    assert to_repeat((run("together", code, FAILED),), 3) == ()


def test_nothing_is_repeated_of_a_run_that_left_tests_after_the_first_that_failed():
    assert to_repeat((run("together", TESTS_FAILED, FAILED, is_whole=False),), 3) == ()


@pytest.mark.parametrize(
    ("again", "verdict", "word"),
    [
        (run(AGAIN, 0, Record(FAILED.nodeid)), 0, "UNSTABLE in the lane together"),
        (run(AGAIN, TESTS_FAILED, FAILED), TESTS_FAILED, "FAILED in the lane together"),
        (run(AGAIN, NO_TESTS), TESTS_FAILED, "FAILED in the lane together"),
        (run(AGAIN, FORGOTTEN), FORGOTTEN, "FAILED in the lane together"),
    ],
    ids=["passed", "failed", "none", "ended early"],
)
def test_a_repeated_test_counts_as_it_ended_and_is_named(again, verdict, word):
    runs = (run("together", TESTS_FAILED, PASSED, FAILED), again)
    assert verdict_on(runs) == verdict
    assert f"{word}: {FAILED.nodeid}" in "\n".join(summary(runs, Order(1, shuffled=False)))


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_failed_is_repeated_with_the_options_of_its_order(shuffled):
    order = Order(7, shuffled)
    (line,) = (line for line in summary((run("together", TESTS_FAILED, FAILED),), order) if "repeat: " in line)
    assert f".venv/bin/pytest {' '.join(order.options)} '{FAILED.nodeid}'" in line
    assert ("--shuffle-files 7" in line) == shuffled


def test_what_a_run_leaves_out_is_named_with_what_runs_it():
    assert left_out(("tests/chart",), node=False) == f"{NODE_SUITE} (make e2e), {COMPATIBILITY} (make compatibility)"
    assert left_out((f"{COMPATIBILITY}/test_helm.py",), node=False) == f"{NODE_SUITE} (make e2e)"
    assert left_out((), node=True) == "everything else (make test)"


def test_what_other_projects_do_for_a_release_runs_for_who_names_it_alone() -> None:
    ignored = f"--ignore={COMPATIBILITY}"
    assert all(ignored in lane.options for lane in lanes_of(2, ("tests/chart",)))
    assert not any(ignored in lane.options for lane in lanes_of(2, ("tests/chart", f"{COMPATIBILITY}/test_helm.py")))
