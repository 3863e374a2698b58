from types import SimpleNamespace

import pytest

from tests.support.progress import (
    Progress,
    Record,
    clock,
    leaves_some_alone,
    left,
    read_left,
    read_records,
    read_running,
    suite_of,
)


@pytest.mark.parametrize(
    ("nodeid", "suite"),
    [
        ("tests/unit/controller/api/test_status.py::test_a[1/2]", "unit"),
        ("tests/kube/test_kills.py::test_b", "kube"),
        ("benchmarks/tests/test_slots.py::test_c", "benchmarks"),
    ],
)
def test_a_suite_is_a_folder(nodeid, suite):
    assert suite_of(nodeid) == suite


def test_what_is_left_is_said_by_suite():
    assert left({"kube": 1_200, "unit": 0, "e2e": 1}) == "1,200 kube, 1 e2e"
    assert left({"kube": 0}) == "nothing"


def test_a_file_that_cannot_be_imported_hides_nothing_of_what_is_left():
    progress = Progress(None)
    unusable = pytest.CollectReport("tests/kube/test_a.py", "failed", "no such module", None)
    progress.pytest_collectreport(unusable)
    items = [SimpleNamespace(nodeid=f"tests/unit/test_b.py::test_{name}") for name in "cd"]
    progress.pytest_collection_finish(SimpleNamespace(items=items))
    assert "left: 2 unit" in progress.line(0.0)


def test_a_file_that_is_skipped_as_a_whole_is_on_record_with_its_reason(tmp_path):
    progress = Progress(tmp_path / "record.json")
    where = ("tests/kube/test_a.py", 3, "Skipped: could not import 'nothing'")
    progress.pytest_collectreport(pytest.CollectReport("tests/kube/test_a.py", "skipped", where, None))
    progress.pytest_collectreport(pytest.CollectReport("tests/kube/test_b.py", "passed", None, []))
    progress.pytest_sessionfinish()
    expected = Record("tests/kube/test_a.py", "skipped", reason="Skipped: could not import 'nothing'")
    assert read_records(tmp_path / "record.json") == (expected,)


def test_seconds_are_said_as_a_clock():
    assert [clock(seconds) for seconds in (0, 59.9, 61, 3600)] == ["0:00", "0:59", "1:01", "60:00"]


def test_a_run_that_wrote_nothing_has_no_records(tmp_path):
    assert read_records(tmp_path / "none.json") == ()
    assert leaves_some_alone(tmp_path / "none.json"), "nobody knows"
    assert read_left(tmp_path / "none.json") is None, "nobody knows"


@pytest.mark.parametrize("count", [0, 1])
def test_a_run_says_whether_it_left_tests(tmp_path, count):
    progress = Progress(tmp_path / "record.json")
    items = [SimpleNamespace(nodeid=f"tests/unit/test_b.py::test_{name}") for name in "c"]
    progress.pytest_collection_finish(SimpleNamespace(items=items))
    if not count:
        progress.pytest_runtest_logfinish(items[0].nodeid)
    progress.pytest_sessionfinish()
    assert read_left(tmp_path / "record.json") == ({"unit": 1} if count else {})


def test_what_ran_when_a_run_was_interrupted_is_on_record_though_it_ended_afterwards(tmp_path):
    progress = Progress(tmp_path / "record.json")
    for name in "ab":
        progress.pytest_runtest_logstart(name)
    progress.pytest_runtest_logfinish("a")
    progress.is_interrupted()
    progress.pytest_runtest_logfinish("b")
    progress.pytest_sessionfinish()
    assert read_running(tmp_path / "record.json") == ("b",)


@pytest.mark.parametrize(("alone", "some"), [("null", True), ("0", False), ("2", True)])
def test_a_lane_is_left_out_when_it_is_known_to_be_empty(tmp_path, alone, some):
    record = tmp_path / "record.json"
    record.write_text(f'{{"alone": {alone}, "tests": []}}')
    assert leaves_some_alone(record) is some


def test_a_record_knows_its_file():
    assert Record("tests/a/test_b.py::test_c[x::y]").file == "tests/a/test_b.py"
