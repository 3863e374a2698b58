"""What a run of all tests comes to, what is said of it, and which tests it repeats."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.__main__ import (
    AGAIN,
    ASKED_FOR,
    COMPATIBILITY,
    INTERRUPTED,
    NO_TESTS,
    NODE_SUITE,
    SLOWEST,
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
from tests.tools import binaries

PASSED = Record("tests/a/test_a.py::test_a")
FAILED = Record("tests/b/test_b.py::test_b", outcome="failed")
FAILED_TOO = Record("tests/c/test_c.py::test_c", outcome="failed")
FORGOTTEN = 3


def run(name: str, code: int, *records: Record, is_whole: bool = True) -> Run:
    return Run(Lane(name, ()), code, 1.0, records, is_whole)


def said_of(*runs: Run, shuffled: bool = False, environment: Mapping[str, str] | None = None) -> list[str]:
    return list(summary(runs, Order(7, shuffled), environment or {}))


def repeats(record: Record, **circumstances: object) -> str:
    (line,) = (
        line for line in said_of(run("together", TESTS_FAILED, record), **circumstances) if line.startswith("  repeat")
    )
    return line


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
    assert f"{word}: {FAILED.nodeid}" in "\n".join(said_of(*runs))


def test_the_slowest_tests_of_all_lanes_are_named_the_slowest_first():
    records = [Record(f"tests/a/test_a.py::test_{number}", seconds=float(number)) for number in range(SLOWEST + 5)]
    said = said_of(run("together", 0, *records[::2]), run("alone", 0, *records[1::2]))
    begins = said.index(f"\nthe {SLOWEST} slowest tests, with their fixtures") + 1
    ends = said.index("\nskipped: none")
    assert said[begins:ends] == [f"{one.seconds:>8.1f} s  {one.nodeid}" for one in records[: -SLOWEST - 1 : -1]]


def test_a_file_that_is_skipped_as_a_whole_is_said_once_though_every_lane_collects_it():
    skipped = Record("tests/a/test_a.py", "skipped", reason="no moon")
    said = said_of(run("together", 0, PASSED, skipped), run("alone", NO_TESTS, skipped))
    assert said[-2:] == ["\nskipped: 1", "  tests/a/test_a.py: no moon"]


@pytest.mark.parametrize("shuffled", [False, True])
def test_what_failed_is_repeated_in_a_lane_with_the_same_seed(shuffled):
    assert repeats(FAILED, shuffled=shuffled) == f"  repeat: .venv/bin/python -m tests --seed 7 {FAILED.nodeid}"
    odd = Record(f"{FAILED.nodeid}[it's two]", "failed")
    assert repeats(odd).endswith(f""" --seed 7 '{FAILED.nodeid}[it'"'"'s two]'""")
    on_a_node = Record(f"{NODE_SUITE}/test_a.py::test_a", "failed")
    assert repeats(on_a_node).endswith(f" -m tests --node --seed 7 {on_a_node.nodeid}")


def test_what_failed_is_repeated_on_the_same_programs_and_nothing_else_of_the_environment_is_told():
    environment = {"KUBEBUILDER_ASSETS": "/opt/two parts", "BEAMLIT_HELM": "", "BEAMLIT_TOKEN": "secret"}
    said = repeats(FAILED, environment=environment)
    assert said.startswith("  repeat: env 'KUBEBUILDER_ASSETS=/opt/two parts' .venv/bin/python -m tests --seed 7 ")
    source = Path(binaries.__file__).read_text()
    assert set(re.findall(r'"((?:BEAMLIT|KUBEBUILDER)_\w+)"', source)) <= set(ASKED_FOR)


def test_what_a_run_leaves_out_is_named_with_what_runs_it():
    assert left_out(("tests/chart",), node=False) == f"{NODE_SUITE} (make e2e), {COMPATIBILITY} (make compatibility)"
    assert left_out((f"{COMPATIBILITY}/test_helm.py",), node=False) == f"{NODE_SUITE} (make e2e)"
    assert left_out((), node=True) == "everything else (make test)"


def test_what_other_projects_do_for_a_release_runs_for_who_names_it_alone() -> None:
    ignored = f"--ignore={COMPATIBILITY}"
    assert all(ignored in lane.options for lane in lanes_of(2, ("tests/chart",)))
    assert not any(ignored in lane.options for lane in lanes_of(2, ("tests/chart", f"{COMPATIBILITY}/test_helm.py")))
