"""What a run of all tests comes to, what is said of it, and which tests it repeats."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.kube.existing import administrator
from tests.support.kube.namespaces import MADE_BY_TESTS
from tests.support.lanes import (
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
    ended,
    lanes_of,
    left_out,
    summary,
    to_repeat,
    verdict_on,
    what_stays,
)
from tests.support.progress import Record
from tests.tools import binaries

PASSED = Record("tests/a/test_a.py::test_a")
FAILED = Record("tests/b/test_b.py::test_b", outcome="failed")
FAILED_TOO = Record("tests/c/test_c.py::test_c", outcome="failed")
FORGOTTEN, KILLED = 3, -9
NOTHING: Mapping[str, int] = {}


def run(
    name: str, code: int, *records: Record, left: Mapping[str, int] | None = NOTHING, running: tuple[str, ...] = ()
) -> Run:
    return Run(Lane(name, ()), code, 1.0, records, left, running)


def said_of(
    *runs: Run,
    shuffled: bool = False,
    environment: Mapping[str, str] | None = None,
    arguments: tuple[str, ...] = (),
) -> list[str]:
    return list(summary(runs, Order(7, shuffled), environment or {}, arguments))


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
        ((KILLED, 0), 137),
        ((KILLED, TESTS_FAILED), TESTS_FAILED),
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
    assert to_repeat((run("together", TESTS_FAILED, FAILED, left={"unit": 1}),), 3) == ()
    assert to_repeat((run("together", TESTS_FAILED, FAILED, left=None),), 3) == ()


def test_what_had_begun_and_what_was_left_of_a_run_that_ended_early_is_said():
    interrupted = run("together", INTERRUPTED, PASSED, left={"kube": 1_200, "unit": 0}, running=(FAILED.nodeid,))
    assert said_of(interrupted)[-2:] == ["\nleft by the lane together: 1,200 kube", f"  had begun: {FAILED.nodeid}"]
    assert said_of(run("together", 0, PASSED))[-1] == "\nskipped: none"


def test_the_code_of_a_lane_that_died_is_said():
    died = run("together", KILLED, left=None)
    assert ended(died) == "together 0 in 0:01 (exit code -9)"
    assert said_of(died)[-1] == "\nthe lane together ended (exit code -9) and says not what it left"
    assert ended(run("together", TESTS_FAILED, FAILED)) == "together 1 in 0:01"


@pytest.mark.parametrize(
    ("given", "repeated"),
    [
        (("--hypothesis-profile=searching", "tests/unit", "-x"), "--hypothesis-profile=searching "),
        (("--hypothesis-seed", "7", "tests/kube/test_kills.py::test_a"), "--hypothesis-seed 7 "),
        (("--strict-markers", "tests/unit"), "--strict-markers "),
        (("-k", "name", "--lf", "--maxfail=3", "--ignore=tests/kube", "--deselect", "tests/unit/test_a.py"), ""),
    ],
)
def test_what_failed_is_repeated_with_the_options_that_shaped_the_run(given, repeated):
    line = repeats(FAILED, arguments=given)
    assert line == f"  repeat: .venv/bin/python -m tests --seed 7 {repeated}{FAILED.nodeid}"


def test_what_stays_on_somebodys_cluster_is_said_with_what_removes_it():
    said = what_stays("/home/me/kubeconfig")
    assert said.startswith("on the cluster of /home/me/kubeconfig")
    ((label, value),) = MADE_BY_TESTS.items()
    assert f"--selector={label}={value}\n" in said
    left = administrator("beamlit-tests-1")["items"]
    assert {one["kind"] for one in left if one["metadata"].get("labels") == MADE_BY_TESTS} == {
        "Namespace",
        "ClusterRoleBinding",
    }


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
