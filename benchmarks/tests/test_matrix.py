"""What a promise of the failure matrix takes and what it does not, and the table in its document."""

from dataclasses import replace

import pytest

from benchmarks.matrix.document import BEGIN, END, DocumentError, as_markdown, row_of, spliced
from tests.support.failures import promise as share
from tests.support.failures.cases import CASES, cells
from tests.support.failures.promise import Control, Notice, Outcome, Promise, breaches

GOOD = Outcome(
    requests=1500,
    failed={},
    failed_outside=0,
    clients=32,
    away=50,
    lasting=1000,
    failed_lasting=0,
    remote=500,
    p99=0.02,
    p99_failed=float("nan"),
    asked=1000,
    asked_range=(1, 1),
    left=500,
)
SLOW = Control(slowest=1.0)
AS_SPLIT = Promise(remote=share.as_split)
FAILING = Promise(remote=share.some, failed=share.as_split, errors=frozenset({"truncated"}), quick=2.0)


def test_a_promise_that_is_kept_has_no_breach() -> None:
    assert list(breaches(GOOD, AS_SPLIT)) == []


@pytest.mark.parametrize(
    ("outcome", "promise", "words"),
    [
        (replace(GOOD, failed={"status 503": 1}), AS_SPLIT, "failed: {'status 503': 1}"),
        (
            replace(GOOD, failed={"truncated": 501}, failed_lasting=500, failed_outside=1, remote=250, p99_failed=1.0),
            FAILING,
            "1 failed before or after it",
        ),
        (replace(GOOD, failed={"truncated": 1}, failed_lasting=1), FAILING, "1 of 1000 failed while it lasted"),
        (
            replace(GOOD, failed={"truncated": 500}, failed_lasting=500, remote=250, p99_failed=3.0),
            FAILING,
            "failures took 3.00 s",
        ),
        (replace(GOOD, remote=600), AS_SPLIT, "60.0% of the answers were the remote backend's"),
        (replace(GOOD, remote=1), Promise(remote=share.none), "0.1% of the answers were the remote backend's"),
        (
            replace(GOOD, away=0, remote=51),
            Promise(remote=share.nearly_as_split),
            "5.1% of the answers were the remote backend's",
        ),
        (replace(GOOD, asked_range=(1, 3)), AS_SPLIT, "a server was asked 1 to 3 times for one request"),
        (replace(GOOD, asked_range=(0, 1)), AS_SPLIT, "a server was asked 0 to 1 times for one request"),
        (replace(GOOD, left=1), replace(AS_SPLIT, leaves=False), "a remote backend was asked 1 times"),
        (
            replace(GOOD, failed={"truncated": 33}, failed_lasting=33, p99_failed=1.0),
            replace(FAILING, once_each=True),
            "33 of 32 clients' requests failed",
        ),
        (
            replace(GOOD, failed={"truncated": 33}, failed_lasting=33, p99_failed=1.0, notice=Notice(3.9, 4.0)),
            replace(FAILING, once_each=True),
            "33 of 32 clients' requests failed",
        ),
        (
            replace(GOOD, failed={"truncated": 2}, failed_lasting=2, p99_failed=1.0, notice=Notice(2.0, 4.0, 2, 1)),
            replace(FAILING, once_each=True),
            "1 failed that were sent when the health checks had found it",
        ),
        (
            replace(GOOD, notice=Notice(3.0, 4.0, 7)),
            replace(FAILING, once_each=True),
            "found ill after 7 checks",
        ),
        (
            replace(GOOD, failed={"truncated": 500}, failed_lasting=500, p99_failed=3.1, remote=250, control=SLOW),
            FAILING,
            "failures took 3.10 s",
        ),
        (
            replace(GOOD, away=0, remote=115),
            Promise(remote=share.nearly_as_split, met=2),
            "11.5% of the answers were the remote backend's",
        ),
        (
            replace(GOOD, away=0, remote=151, control=Control(astray=0.1)),
            Promise(remote=share.nearly_as_split),
            "15.1% of the answers were the remote backend's",
        ),
        (
            replace(GOOD, again=115),
            Promise(remote=share.as_split, met=2, again=0.05),
            "115 of 1000 were sent once more",
        ),
        (replace(GOOD, away=100, remote=980), AS_SPLIT, "98.0% of the answers were the remote backend's"),
        (replace(GOOD, control=Control(failed=1)), AS_SPLIT, "1 failed of a model whose servers were well"),
        (replace(GOOD, control=Control(misled=1)), AS_SPLIT, "1 left of a model whose servers were well"),
        (replace(GOOD, checks_until_back=4), AS_SPLIT, "4 checks were passed before all were asked again"),
        (replace(GOOD, cut=True), AS_SPLIT, "it took too long"),
        (replace(GOOD, not_back=("local-1",)), AS_SPLIT, "nothing came to local-1 any more"),
    ],
)
def test_each_breach_is_said_in_words(outcome: Outcome, promise: Promise, words: str) -> None:
    assert list(breaches(outcome, promise)) == [words]


@pytest.mark.parametrize(
    ("outcome", "promise"),
    [
        (
            replace(GOOD, failed={"truncated": 500}, failed_lasting=500, p99_failed=2.9, remote=250, control=SLOW),
            FAILING,
        ),
        (
            replace(
                GOOD,
                **{"failed": {"truncated": 64}, "failed_lasting": 64, "p99_failed": 1.0},
                **{"notice": Notice(4.5, 4.0, 6), "control": SLOW},
            ),
            replace(FAILING, once_each=True),
        ),
        (replace(GOOD, again=114), Promise(remote=share.as_split, met=2, again=0.05)),
        (replace(GOOD, away=0, remote=113), Promise(remote=share.nearly_as_split, met=2)),
        (replace(GOOD, away=0, remote=149, control=Control(astray=0.1)), Promise(remote=share.nearly_as_split)),
        (replace(GOOD, away=100, remote=900, control=Control(astray=0.1)), AS_SPLIT),
    ],
)
def test_what_the_machine_does_by_itself_is_no_breach(outcome: Outcome, promise: Promise) -> None:
    assert list(breaches(outcome, promise)) == []


def test_every_case_has_each_split_once() -> None:
    names = [str(cell) for cell in cells()]

    assert len(names) == len(set(names))
    assert len(names) == sum(3 + (case.kept is not None) for case in CASES)


def test_where_nothing_may_leave_nothing_is_promised_to() -> None:
    assert {cell.promise.leaves for cell in cells() if cell.is_kept} == {False}


def test_the_table_takes_the_place_of_the_one_before() -> None:
    rows = [row_of(cell, GOOD) for cell in cells()]
    document = f"# Title\n\n{BEGIN}\nold\n{END}\nrest\n"

    once = spliced(document, as_markdown(rows))

    assert once == spliced(once, as_markdown(rows))
    assert "old" not in once
    assert once.startswith("# Title\n")
    assert once.endswith(f"{END}\nrest\n")
    assert "| every replica is killed | 100/0 | 1,500 | 0 | 20 ms | 1.00 | 50.0 % |" in once
    assert all(f"* *{case.name}*: {case.means}" in once for case in CASES)


def test_a_document_without_marks_is_not_written() -> None:
    with pytest.raises(DocumentError):
        spliced("# Title\n", "table")
